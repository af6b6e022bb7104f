"""An index or a manifest that cannot be: one line before anything is read by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcgender
from hpcgender.trainable import has_ages
from shard_tools import index
from shard_tools.base.errors import UserError
from shard_tools.index import Index, check_values
from shard_tools.manifest import read_manifest


@pytest.fixture
def data(shards: Path, tmp_path: Path) -> Path:
    """The drawn faces, to be damaged."""
    return shutil.copytree(shards, tmp_path / "data")


def column(name: str, value: int) -> Callable[[Any], Any]:
    def edit(rows: Any) -> Any:
        rows[name][3] = value
        return rows

    return edit


VALUES = r"index\.npy is damaged, first in row 3: look with shard-tools verify, and pack again"
COLUMNS = r"index\.npy does not have the columns of an index: pack the data set again"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (column("shard", 4_000_000_000), VALUES),
        (column("offset", 2**64 - 1), VALUES),
        (column("length", 2**32 - 1), VALUES),
        (column("gender", 2), VALUES),
        (column("gender", -128), VALUES),
        (
            lambda rows: rows[:-1],
            r"index\.npy has the shape \(\d+,\), the manifest says \d+ samples: pack the data set again",
        ),
        (lambda rows: rows.reshape(1, -1), r"index\.npy has the shape \(1, \d+\), the"),
        (lambda rows: np.zeros(()), COLUMNS),
        (lambda rows: rows[["shard", "offset"]].copy(), COLUMNS),
        (lambda rows: np.array([{}] * len(rows)), r"cannot read .*index\.npy: .*; pack the data set again"),
    ],
)
def test_an_index_that_cannot_be_is_one_line(edit: Callable[[Any], Any], why: str, data: Path) -> None:
    path = data / "train" / "index.npy"
    np.save(path, edit(np.load(path)), allow_pickle=True)
    with pytest.raises(UserError, match=why) as error:
        hpcgender.open(data, "train")
    assert "\n" not in str(error.value)


def test_the_values_of_an_index_are_looked_at_once_and_again_when_it_was_packed_anew(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Path] = []

    def check(rows: Index, bytes_of_shards: Sequence[int], path: Path) -> None:
        checked.append(path)
        check_values(rows, bytes_of_shards, path)

    monkeypatch.setattr(index, "check_values", check)
    manifest = read_manifest(data)
    assert manifest.index("train").tolist() == manifest.index("train").tolist()
    assert has_ages(manifest, "val")
    read_manifest(data).index("train")
    assert checked == [data / "train" / "index.npy"]
    rows = column("gender", 2)(np.load(checked[0]))
    np.save(checked[0], rows)
    for _ in range(2):
        with pytest.raises(UserError, match=VALUES):
            manifest.index("train")
    assert len(checked) == 3


@pytest.mark.parametrize("header", [b"{" * 40, b"'descr'\n(", b"\0" * 30, b"(" * 60])
def test_a_header_that_is_no_python_is_one_line(header: bytes, data: Path) -> None:
    path = data / "train" / "index.npy"
    raw = path.read_bytes()
    path.write_bytes(raw[:10] + header + raw[10 + len(header) :])
    with pytest.raises(UserError, match=r"cannot read .*index\.npy: [^\n]*; pack the data set again"):
        hpcgender.open(data, "train")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("/etc/passwd", r"'/etc/passwd' is not a tar in train/"),
        ("train/../../secret.tar", r"'train/\.\./\.\./secret\.tar' is not a tar in train/"),
        ("train/a\0.tar", r"is not a tar in train/"),
        ("train/\ud800.tar", r"is not a tar in train/"),
    ],
)
def test_a_manifest_leads_nowhere_else(value: str, why: str, data: Path) -> None:
    content = json.loads((data / "manifest.json").read_text())
    content["splits"]["train"]["shards"][0]["file"] = value
    (data / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"manifest\.json is damaged, .*{why}: pack the data set again"):
        hpcgender.open(data, "train")
