from hpcgender.cli import main

main("predict")
