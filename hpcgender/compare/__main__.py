from hpcgender.cli import main

main("compare")
