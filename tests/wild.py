"""Words that a shell would take apart, and a command all of whose options have some: they must arrive as they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

WILD = 'it\'s $(touch pwned) `touch pwned` "a b" ; touch pwned & é'
COLUMN, FEMALE, MALE = f"column {WILD}", "f;touch pwned", "m && $(touch pwned) *"


def pack_wild_table(root: Path, faces: Path, out: Path) -> tuple[object, ...]:
    """The words that pack a few faces into `out`; directories, table, columns and values are as strange as may be."""
    images, table = root / "$HOME 'images'", root / f"table {WILD}.csv"
    images.mkdir()
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("$HOME", COLUMN))
        for number, face in enumerate(sorted(faces.iterdir())[:8]):
            (images / face.name).write_bytes(face.read_bytes())
            rows.writerow((face.name, (FEMALE, MALE)[number % 2]))
    labels = ("--image", "$HOME", "--gender", COLUMN, "--female", FEMALE, "--male", MALE)
    return ("pack", "table", "--images", images, "--table", table, *labels, "--out", out, "--val", 0, "--test", 0)


def check_wild_pack(root: Path, out: Path) -> None:
    """All of it arrived, and no shell has run any of it."""
    options = json.loads((out / "manifest.json").read_text())["options"]
    assert (options["image"], options["gender"]) == ("$HOME", COLUMN)
    assert (options["female"], options["male"]) == ([FEMALE], [MALE])
    assert not list(root.rglob("pwned"))
