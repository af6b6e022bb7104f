"""An index or a manifest that cannot be: one line before anything is read by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcgender
from shard_tools.base.errors import UserError


@pytest.fixture
def data(shards: Path, tmp_path: Path) -> Path:
    """The drawn faces, to be damaged."""
    return shutil.copytree(shards, tmp_path / "data")


def column(name: str, value: int) -> Callable[[Any], Any]:
    def edit(index: Any) -> Any:
        index[name][3] = value
        return index

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
        (lambda index: index[:-1], r"index\.npy has \d+ rows, the manifest says \d+ samples: pack the data set again"),
        (lambda index: index.reshape(1, -1), r"index\.npy has 1 x \d+ rows"),
        (lambda index: np.zeros(()), COLUMNS),
        (lambda index: index[["shard", "offset"]].copy(), COLUMNS),
        (lambda index: np.array([{}] * len(index)), r"cannot read .*index\.npy: .*; pack the data set again"),
    ],
)
def test_an_index_that_cannot_be_is_one_line(edit: Callable[[Any], Any], why: str, data: Path) -> None:
    path = data / "train" / "index.npy"
    np.save(path, edit(np.load(path)), allow_pickle=True)
    with pytest.raises(UserError, match=why) as error:
        hpcgender.open(data, "train")
    assert "\n" not in str(error.value)


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
