"""The command `shard-tools` and `python -m shard_tools`."""

from __future__ import annotations

import sys
from typing import NoReturn

from shard_tools.commands import Command, run_command

PACK = "shard_tools.pack:pack"
COMMANDS = {
    "synthetic": Command(
        "shard_tools.synthetic.files:SyntheticConfig",
        "shard_tools.synthetic.files:draw_faces",
        "draw faces into files",
    ),
    "pack utkface": Command("shard_tools.sources.utkface:Utkface", PACK, "pack images with UTKFace's names"),
    "pack morph": Command("shard_tools.sources.morph:Morph", PACK, "pack images with MORPH's names"),
    "pack folders": Command("shard_tools.sources.folders:Folders", PACK, "pack one folder of images a class"),
    "pack table": Command("shard_tools.sources.table:Table", PACK, "pack images that a CSV, TSV, Parquet or list names"),
    "pack ms1mv2": Command("shard_tools.sources.ms1mv2:Ms1mv2", PACK, "pack MXNet RecordIO files of faces"),
    "pack synthetic": Command("shard_tools.sources.synthetic:Synthetic", PACK, "pack drawn faces"),
    "finalize": Command(
        "shard_tools.pack:FinalizeConfig", "shard_tools.pack:finalize", "join the parts that tasks looked at"
    ),
}


def main() -> NoReturn:
    """Runs the command that the arguments name and exits with its code."""
    sys.exit(run_command("shard-tools", COMMANDS, sys.argv[1:]))
