"""The command `shard-tools` and `python -m shard_tools`."""

from __future__ import annotations

import sys
from typing import NoReturn

from shard_tools.commands import Command, run_command

PACK = "shard_tools.pack:pack"
COMMANDS = {
    "synthetic": Command(
        "shard_tools.synthetic:SyntheticConfig", "shard_tools.synthetic:draw_faces", "draw a data set of faces"
    ),
    "pack utkface": Command("shard_tools.sources.utkface:Utkface", PACK, "pack images with UTKFace's names"),
    "pack morph": Command("shard_tools.sources.morph:Morph", PACK, "pack images with MORPH's names"),
    "pack folders": Command("shard_tools.sources.folders:Folders", PACK, "pack one folder of images a class"),
    "finalize": Command(
        "shard_tools.pack:FinalizeConfig", "shard_tools.pack:finalize", "join the parts that tasks looked at"
    ),
}


def main() -> NoReturn:
    """Runs the command that the arguments name and exits with its code."""
    sys.exit(run_command("shard-tools", COMMANDS, sys.argv[1:]))
