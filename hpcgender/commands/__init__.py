"""The commands of hpcgender, a file each: its options, and what is true of it."""

from shard_tools.base.commands import Program
from shard_tools.commands import SHARD_TOOLS

HPCGENDER = Program("hpcgender", "hpcgender.commands")

PROGRAMS = (HPCGENDER, SHARD_TOOLS)
"""Whose commands `hpcgender launch` runs."""
