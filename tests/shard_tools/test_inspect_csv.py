"""The table that `shard-tools inspect --csv` writes: what is packed of it again is the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from shard_tools.commands.inspect import InspectConfig
from shard_tools.inspect.inspection import inspect_shards
from shard_tools.inspect.sample import read_labels
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.table import Table
from tests.shard_tools.listed import Listed, save


def labels_of(data: Path) -> dict[str, tuple[Any, ...]]:
    """Split and labels of each image, by its file in the source."""
    found = {}
    manifest = read_manifest(data)
    for split in manifest.splits:
        for row in manifest.index(split):
            label = read_labels(manifest, split, row)
            names = (row[name].item() for name in ("gender", "age", "subject", "group", "content"))
            found[label["source"]] = (split, *names)
    return found


def test_the_csv_file_packs_the_same_images_in_the_same_splits_again(tmp_path: Path) -> None:
    """Also those whose names and labels a spreadsheet would take for formulas, or that have lines and quotes."""
    images = tmp_path / "images"
    names = ["=cmd()|a.jpg", "-1.jpg", "+b.jpg", "@c.jpg", 'two\nlines "and, quotes".jpg', " space.jpg", "x/y.jpg"]
    names += [f"{number}.jpg" for number in range(33)]
    subjects = ["=1+1", "'=1+1", "-", "@me", "two\nlines", "plain, too"]
    records = []
    for seed, name in enumerate(names):
        save(images / name, seed)
        subject = subjects[seed] if seed < len(subjects) else f"{seed % 20:03d}"
        group = "+group" if seed % 2 else "'+group"
        records.append({"name": name, "gender": seed % 2, "age": 24.1 + seed, "subject": subject, "group": group})
    records[8] = {"name": names[8], "gender": 1}
    (images / "labels.json").write_text(json.dumps(records))
    pack(Listed(images=images, out=tmp_path / "packed", val=0.2, test=0.2, workers=1))
    inspect_shards(InspectConfig(data=tmp_path / "packed", csv=tmp_path / "rows.csv"))
    text = (tmp_path / "rows.csv").read_text()
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names)
    assert {row["file"] for row in rows} >= {"./=cmd()|a.jpg", "./-1.jpg", 'two\nlines "and, quotes".jpg', "7.jpg"}
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    assert text.startswith("file,split,gender,age,subject,group,key\n")

    again = {"images": images, "table": (tmp_path / "rows.csv",), "mapping": Path("packed"), "workers": 1}
    pack(Table(**again, out=tmp_path / "again"))  # type: ignore[arg-type]
    expected = labels_of(tmp_path / "packed")
    assert {label[0] for label in expected.values()} == {"train", "val", "test"}
    assert labels_of(tmp_path / "again") == expected
