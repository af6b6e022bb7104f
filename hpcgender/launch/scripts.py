"""Copies of the job scripts that run outside a clone, in the environment that this package is installed in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import jobs
from hpcgender.commands.scripts import ScriptsConfig
from jobs.sites import PROFILES
from shard_tools.base.documents import shipped
from shard_tools.base.errors import UserError
from shard_tools.base.files import write_file
from shard_tools.base.storage import unwritable

CLONE = "[ ! -f .venv/bin/activate ] || . .venv/bin/activate\n"
"""How a script finds the environment of a clone."""


def copy_scripts(config: ScriptsConfig) -> None:
    """Writes the scripts, the profiles and an empty `logs` beside them; UserError if one would replace another file."""
    files = {config.out / name: content for name, content in scripts(Path(sys.executable).parent).items()}
    files |= {config.out / "sites" / path.name: path.read_bytes() for path in shipped(PROFILES).values()}
    if other := next((path for path in files if path.exists() and not holds(path, files[path])), None):
        raise UserError(f"{other} is there already, and is another: remove it, or give another directory")
    project = config.out.absolute().parent
    try:
        for directory in (config.out / "sites", project / "logs"):
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, error.filename or config.out) from None
    for path, content in files.items():
        write_file(path, content)
        if path.suffix == ".sh":
            path.chmod(path.stat().st_mode | 0o111)
    print(f"the job scripts are in {config.out}, and site profiles in {config.out / 'sites'}")
    print(f"they run in {project}: data, runs and logs are there")


def scripts(programs: Path) -> dict[str, bytes]:
    """The scripts by their names, for the environment with these programs. UserError if it has no `python`."""
    if not (programs / "python").exists():
        raise UserError(f"no python beside {sys.executable}: install hpcgender in an environment of its own")
    environment = f"PATH={shlex.quote(str(programs))}:$PATH\n"
    texts = {path.name: path.read_text(encoding="utf-8") for path in Path(jobs.__path__[0]).glob("*.sh")}
    return {name: text.replace(CLONE, environment).encode() for name, text in texts.items() if CLONE in text}


def holds(path: Path, content: bytes) -> bool:
    """Whether a path is a file with this content."""
    return path.is_file() and path.read_bytes() == content
