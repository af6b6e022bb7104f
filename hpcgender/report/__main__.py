from hpcgender.cli import main

main("report")
