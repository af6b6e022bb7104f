"""How extras are installed: in a clone with its tested versions, and without one into this environment."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
"""The directory of the packages: the clone, or where a wheel was installed."""


def pip_install(extra: str) -> str:
    """The command that installs an extra, such as `align`, where these packages run."""
    if (CODE / "constraints.txt").is_file():
        return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
    return f"{shlex.quote(sys.executable)} -m pip install 'hpcgender[{extra}]'"
