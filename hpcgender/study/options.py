"""The options that a study was started with last, kept in its directory so that it can be started again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hpcgender.commands.study import StudyConfig
from shard_tools.base.documents import read_document, restored, write_document

_FORM = "hpcgender-study-1"
_FILE = "options.json"


def keep_options(config: StudyConfig, directory: Path) -> None:
    """Writes the options, and where the command was given."""
    values = {**asdict(config), "file": str(config.file.absolute()), "dry_run": False}
    write_document(directory / _FILE, _FORM, {"options": values, "cwd": str(Path.cwd())})


def kept_options(directory: Path) -> tuple[StudyConfig, Path]:
    """The options, and the directory where the command was given; UserError if they are not there."""
    again = "start it with hpcgender study STUDY.toml"
    content = read_document(directory / _FILE, _FORM, again, again)
    return restored(StudyConfig, content["options"], directory / _FILE, again), Path(content["cwd"])
