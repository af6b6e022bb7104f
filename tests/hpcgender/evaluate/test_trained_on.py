"""Images of the model's own training among those that it is evaluated on: found, counted, left out on request."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcgender.checkpoint import read_checkpoint, save_checkpoint
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.limit import parts_of
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.predictions import read_predictions
from hpcgender.evaluate.results import read_evaluation
from hpcgender.evaluate.trained_on import find_overlap
from hpcgender.report.evaluation import relation
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.examples import save_model

WHOLE = {"limit": 0, "limit_seed": 0}
"""Options of a run that was trained on all images."""

SHARED = 5


@pytest.fixture
def other(shards: Path, tmp_path: Path) -> Path:
    """Another data set, five of whose test images have the bytes of training images of `shards`."""
    out = tmp_path / "other" / "shards"
    shutil.copytree(shards, out)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    path = out / "test" / "index.npy"
    index = np.load(path)
    index["content"][2 : 2 + SHARED] = read_manifest(shards).index("train")["content"][:SHARED]
    np.save(path, index)
    return out


@pytest.fixture
def checkpoint(shards: Path, tmp_path: Path) -> Path:
    """Of a run that was trained on `shards`."""
    path = save_model(tmp_path / "run" / "checkpoints" / "best.pt")
    content = read_checkpoint(path)
    content["config"]["data"], content["manifest"] = str(shards), read_manifest(shards).sha256
    save_checkpoint(path, {name: value for name, value in content.items() if name != "format"})
    return path


def test_they_are_found_by_the_hashes_of_both_indexes(shards: Path, other: Path, tmp_path: Path) -> None:
    digest = read_manifest(shards).sha256

    def shared(data: Path, split: str, training: Path = shards) -> tuple[int | None, str]:
        options = {**WHOLE, "data": str(training)}
        facts = find_overlap(options, digest, read_manifest(data), split, leave_out=False).facts
        return facts.images, facts.why

    train = read_manifest(shards).split("train").samples
    assert shared(shards, "train") == shared(other, "train") == (train, "")
    limited = {"data": str(shards), "limit": 50, "limit_seed": 3}
    sample = find_overlap(limited, digest, read_manifest(other), "train", leave_out=False)
    (part,) = parts_of([read_manifest(shards)], 50, 3)
    assert part.chosen is not None
    assert np.flatnonzero(sample.trained).tolist() == part.chosen.tolist()
    assert shared(shards, "test") == (0, "")
    assert shared(other, "test") == (SHARED, "")
    assert shared(shards, "test", tmp_path / "moved") == (0, "")  # it is the data set itself
    gone = f"the training data set is no longer at {tmp_path / 'moved'}"
    assert shared(other, "test", tmp_path / "moved") == (None, gone)
    assert shared(other, "test", other) == (None, f"the training data set {other} has been packed again since")
    with pytest.raises(UserError, match=f"--without-trained cannot leave images out, because {gone}"):
        find_overlap({**WHOLE, "data": str(tmp_path / "moved")}, digest, read_manifest(other), "test", leave_out=True)
    with pytest.raises(UserError, match="--without-trained leaves no image of train"):
        find_overlap({**WHOLE, "data": str(shards)}, digest, read_manifest(other), "train", leave_out=True)


def test_they_are_reported_and_left_out_on_request(
    other: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = read_manifest(other).index("test")
    line = f"the run's training split has {SHARED} of {len(index)} images, byte for byte"
    for leave_out in (False, True):
        out = tmp_path / str(leave_out)
        evaluate(EvaluateConfig(data=other, checkpoint=checkpoint, out=out, without_trained=leave_out))
        printed = capsys.readouterr().out.splitlines()
        words = ": left out" if leave_out else ", which flatters (--without-trained omits such images)"
        assert printed.count(line + words) == 2  # before the work, and with the scores
        found, keys = read_evaluation(out), set(read_predictions(out).key.tolist())
        assert relation(found) == line + words
        assert (found.data.trained_on.images, found.data.trained_on.of) == (SHARED, len(index))
        trained = {key.decode() for key in index["key"][2 : 2 + SHARED].tolist()}
        assert keys == {key.decode() for key in index["key"].tolist()} - (trained if leave_out else set())
        assert found.data.images == len(keys)
        assert found.gender
        assert found.gender.images == len(keys)
    with pytest.raises(UserError, match="holds an evaluation with --without-trained"):
        EvaluateConfig(data=other, checkpoint=checkpoint, out=out).check()
