"""The command `shard-tools` and `python -m shard_tools`."""

from __future__ import annotations

import sys
from typing import NoReturn

from shard_tools.base.commands import Command, run_command


def pack_command(source: str, summary: str) -> Command:
    """Packing a source, the class of that name in a module of `shard_tools.sources`."""
    return Command(f"shard_tools.sources.{source.lower()}:{source}", "shard_tools.pack:pack", summary)


COMMANDS = {
    "pack ms1mv2": pack_command("Ms1mv2", "pack MS1MV2 and other MXNet RecordIO files, with a list of genders"),
    "pack morph": pack_command("Morph", "pack MORPH, by its names, its CSV and a list of corrections"),
    "pack utkface": pack_command("Utkface", "pack images with UTKFace's names"),
    "pack folders": pack_command("Folders", "pack one folder of images a class, such as Kaggle's"),
    "pack table": pack_command("Table", "pack what a CSV, TSV, Parquet or list names, such as FairFace and CelebA"),
    "pack synthetic": pack_command("Synthetic", "pack drawn faces"),
    "finalize": Command("shard_tools.pack:FinalizeConfig", "shard_tools.pack:finalize", "join what pack --task made"),
    "verify": Command("shard_tools.verify:VerifyConfig", "shard_tools.verify:verify", "check packed data sets"),
    "inspect": Command(
        "shard_tools.inspect.options:InspectConfig", "shard_tools.inspect.inspection:inspect_shards", "look at one"
    ),
    "synthetic": Command(
        "shard_tools.synthetic.files:SyntheticConfig", "shard_tools.synthetic.files:draw_faces", "draw faces into files"
    ),
}


def main() -> NoReturn:
    """Runs the command that the arguments name and exits with its code."""
    sys.exit(run_command("shard-tools", COMMANDS, sys.argv[1:]))
