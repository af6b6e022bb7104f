"""Names that become directories, files and jobs: which are allowed, and one made from any text."""

from __future__ import annotations

import re

from shard_tools.base.errors import UserError

MAX_LENGTH = 100

_ALLOWED = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*")


def check_name(option: str, name: str) -> None:
    """Raises UserError, which begins with `option`, unless `name` is safe as a directory's and a job's name."""
    if not _ALLOWED.fullmatch(name) or len(name) > MAX_LENGTH:
        raise UserError(
            f"{option} {name[: MAX_LENGTH + 1]!r}: a name has letters, digits and . _ - +, does not begin with . or -, "
            f"and has at most {MAX_LENGTH} characters"
        )


def safe_name(text: str) -> str:
    """A name that `check_name` takes, made from any text: what is not allowed becomes _."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).lstrip(".-")[:MAX_LENGTH] or "_"
