"""What a user types: the options of each command and what is true of it. Imports no torch, so that --help is quick."""
