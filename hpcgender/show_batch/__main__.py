from hpcgender.cli import main

main("show-batch")
