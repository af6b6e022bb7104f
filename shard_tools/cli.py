"""The program `shard-tools` and `python -m shard_tools`."""

from shard_tools.commands import SHARD_TOOLS

main = SHARD_TOOLS.main
"""Runs the command that the command line names, and exits with its code."""
