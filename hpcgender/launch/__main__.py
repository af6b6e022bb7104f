from hpcgender.cli import main

main("launch")
