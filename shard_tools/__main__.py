from shard_tools.cli import main

main()
