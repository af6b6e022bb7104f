"""What a data set's manifest must not say: each refusal names the file, the fault and what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest, Shard, Split, manifest_sha256, read_manifest, write_manifest

Content = dict[str, Any]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A manifest that is right, written into a directory that has nothing else."""
    shard = Shard(file="train/train-000000.tar", samples=3, bytes=10_240, sha256="a" * 64)
    counts = {"female": 1, "male": 2}
    train = Split(name="train", samples=3, counts=counts, shards=(shard,), index_sha256="b" * 64)
    written = Manifest(
        root=tmp_path, source="UTKFace", convention="utkface", options={}, classes=("female", "male"),
        splits={"train": train}, quarantined=0,
    )  # fmt: skip
    write_manifest(written)
    return written


def edited(manifest: Manifest, edit: Callable[[Content, Content], object]) -> str:
    """What is said of the manifest after `edit` has changed its content, or that of its split."""
    path = manifest.root / "manifest.json"
    content = json.loads(path.read_text())
    edit(content, content["splits"]["train"])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        read_manifest(manifest.root)
    return str(refused.value)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda all_of, _: all_of.update(quarantined=-1), "its number of quarantined images is out of range"),
        (lambda all_of, _: all_of.update(quarantined=2**63), "its number of quarantined images is out of range"),
        (lambda all_of, _: all_of["splits"].clear(), "it has no splits"),
        (lambda _, train: train.update(name="val"), "split 'train' has another name or is no directory name"),
        (
            lambda all_of, train: all_of.update(splits={"../val": {**train, "name": "../val"}}),
            "split '../val' has another name or is no directory name",
        ),
        (lambda _, train: train["counts"].pop("male"), "split train does not count female and male"),
        (lambda _, train: train["counts"].update(other=0), "split train does not count female and male"),
        (lambda _, train: train["counts"].update(male=-1), "a count of split train is out of range"),
        (lambda _, train: train.update(samples=2**63), "a count of split train is out of range"),
        (lambda _, train: train.update(index_sha256="B" * 64), "the SHA-256 of the index of split train is not one"),
        (lambda _, train: train["shards"][0].update(samples=-1), "samples or bytes of train/train-000000.tar are out"),
        (lambda _, train: train["shards"][0].update(bytes=2**63), "samples or bytes of train/train-000000.tar are out"),
        (lambda _, train: train["shards"][0].update(sha256="a" * 63), "the SHA-256 of train/train-000000.tar is not"),
        (lambda _, train: train["shards"][0].update(file="val/a.tar"), "'val/a.tar' is not a tar in train/"),
        (lambda _, train: train["shards"].append(train["shards"][0]), "split train has a shard twice"),
        (lambda _, train: train.update(samples=4), "the shards of split train do not add up to its 4 samples"),
    ],
)
def test_a_manifest_that_cannot_be_is_damaged(
    manifest: Manifest, edit: Callable[[Content, Content], object], fault: str
) -> None:
    said = edited(manifest, edit)
    assert said.startswith(f"{manifest.root}/manifest.json is damaged, {fault}")
    assert said.endswith(": pack the data set again")
    assert "\n" not in said


@pytest.mark.parametrize("other", [{"format": "shards"}, {"version": 1}, {"format": None}])
def test_a_manifest_of_another_format_is_not_read(manifest: Manifest, other: Content) -> None:
    said = edited(manifest, lambda content, _: content.update(other))
    assert said == f"{manifest.root}/manifest.json is not of format hpcgender-shards 2: pack the data set again"


def test_what_is_written_is_read(manifest: Manifest) -> None:
    raw = (manifest.root / "manifest.json").read_bytes()
    found = read_manifest(manifest.root)
    assert found.sha256 == manifest_sha256(manifest.root) == hashlib.sha256(raw).hexdigest()
    write_manifest(found)
    assert (manifest.root / "manifest.json").read_bytes() == raw
    assert found.shard_paths("train") == [manifest.root / "train" / "train-000000.tar"]
    with pytest.raises(UserError, match=r"^no split 'trian' in .*: did you mean train\?$"):
        found.split("trian")


def test_a_data_set_that_is_not_there_or_not_ready_is_said(tmp_path: Path) -> None:
    assert manifest_sha256(None) == manifest_sha256(tmp_path) == ""
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError) as refused:
            read_manifest(root)
        pack = "name a packed data set, or pack one: shard-tools pack --help"
        assert str(refused.value) == f"no manifest.json in {root}: {pack}"
    (tmp_path / ".packing").mkdir()
    with pytest.raises(UserError) as refused:
        read_manifest(tmp_path)
    assert str(refused.value) == f"{tmp_path} is not packed to its end: give the same shard-tools command again"
