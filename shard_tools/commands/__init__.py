"""The commands of shard-tools, a file each: its options, and what is true of it."""

from shard_tools.base.commands import Program

SHARD_TOOLS = Program("shard-tools", "shard_tools.commands")
