from hpcgender.cli import main

main("train")
