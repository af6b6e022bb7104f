"""The ground floor of all three packages: errors for people, commands, documents, progress, pages. Imports no torch."""
