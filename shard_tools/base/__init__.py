"""What all three packages share: errors for people, commands, documents, progress, pages. Imports no torch."""
