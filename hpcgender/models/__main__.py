from hpcgender.cli import main

main("models")
