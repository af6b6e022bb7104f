from hpcgender.cli import main

main("evaluate")
