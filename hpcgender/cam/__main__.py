from hpcgender.cli import main

main("cam")
