"""What epochs are validated on, where a run starts from, and with which class weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.checkpoint import read_checkpoint
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.data.limit import parts_of
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.leaks import leaks_between
from hpcgender.train.loop import train
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest

SMALL: dict[str, Any] = {"model": "compact", "image_size": 32, "batch_size": 32, "lr": 0.01, "epochs": 1}


def options(data: Path, tmp_path: Path, **more: Any) -> TrainConfig:
    return TrainConfig(**{**SMALL, "data": data, "runs": tmp_path, "name": "a", "backend": "torchvision", **more})


def records(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def weights(config: TrainConfig, name: str) -> dict[str, torch.Tensor]:
    return read_checkpoint(config.run_dir / "checkpoints" / name)["model"]  # type: ignore[no-any-return]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def refused(config: TrainConfig) -> str:
    with pytest.raises(UserError) as error:
        config.check()
    return str(error.value)


def test_without_validation_the_last_weights_are_kept(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = options(shards, tmp_path, val_split="none", epochs=2)
    assert train(config) == 0
    printed = capsys.readouterr().out
    assert "no validation, batch 32" in printed
    assert "--val-split none: no epoch is validated, and best.pt has the last weights" in printed
    assert "| no validation | lr" in printed
    assert "no validation: the last weights, of epoch 2, saved in" in printed
    assert same(weights(config, "best.pt"), weights(config, "last.pt"))
    assert [(record["val"]["images"], record["val"]["accuracy"]) for record in records(config)] == [(0, None)] * 2
    assert "finished: 2 epochs, no validation" in finished(config, capsys)


def finished(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> str:
    assert train(TrainConfig(**{**vars(config), "resume": True})) == 0
    return capsys.readouterr().out


def test_epochs_are_validated_on_another_split_which_results_say(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = options(shards, tmp_path, val_split="test")
    assert train(config) == 0
    printed = capsys.readouterr().out
    tested = read_manifest(shards).splits["test"].samples
    assert f"{tested} for validation" in printed
    assert "WARNING: --val-split test: best.pt is the best epoch on test, whose accuracy flatters it" in printed
    assert records(config)[0]["val"]["images"] == tested
    best = config.run_dir / "checkpoints" / "best.pt"
    evaluate(EvaluateConfig(checkpoint=best, data=shards, split="test", backend="torchvision"))
    assert "the best epoch was chosen on these images" in capsys.readouterr().out
    assert "is finished: 1 epoch, best validation accuracy" in finished(config, capsys)


def test_epochs_are_validated_on_another_data_set(
    shards: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = options(shards, tmp_path, val_data=others, val_split="train")
    assert train(config) == 0
    count = read_manifest(others).splits["train"].samples
    assert f"{count} for validation" in capsys.readouterr().out
    assert records(config)[0]["val"]["images"] == count
    assert read_checkpoint(config.run_dir / "checkpoints" / "best.pt")["val_manifest"] == read_manifest(others).sha256

    again = {"resume": True, "epochs": 2, "val_split": "train"}
    moved = tmp_path / "moved"
    shutil.copytree(others, moved)
    options(shards, tmp_path, **again, val_data=moved).check()
    (moved / "manifest.json").write_text((moved / "manifest.json").read_text() + "\n")
    says = refused(options(shards, tmp_path, **again, val_data=moved))
    assert f"was validated on other data than is in {moved} now, which it read from {others}" in says
    assert "with --val-split train, not val" in refused(options(shards, tmp_path, resume=True, val_data=others))


def test_validation_that_cannot_be_right_is_refused(shards: Path, others: Path, tmp_path: Path) -> None:
    assert "is what is trained on" in refused(options(shards, tmp_path, val_split="train"))
    assert "is what is trained on" in refused(options(shards, tmp_path, val_split="train", val_data=shards))
    assert "give one of both" in refused(options(shards, tmp_path, val_split="none", val_data=others))
    assert "has no hard images" in refused(options(shards, tmp_path, val_split="hard"))
    copied = tmp_path / "copied"
    shutil.copytree(others, copied)
    (copied / "manifest.json").write_text((copied / "manifest.json").read_text() + "\n")
    index = np.load(copied / "train" / "index.npy")
    index["content"][:3] = read_manifest(shards).index("train")["content"][:3]
    np.save(copied / "train" / "index.npy", index)
    leaking = options(shards, tmp_path, val_split="train", val_data=copied)
    assert f"{shards / 'train'} and {copied / 'train'}: 3 " in refused(leaking)
    options(shards, tmp_path, val_split="train", val_data=copied, allow_leaks=True).check()


def test_a_leak_into_a_data_set_of_the_mixture_is_said_once(shards: Path, others: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(others, copied)
    (copied / "manifest.json").write_text((copied / "manifest.json").read_text() + "\n")
    index = np.load(copied / "val" / "index.npy")
    index["content"][:3] = read_manifest(shards).index("train")["content"][:3]
    np.save(copied / "val" / "index.npy", index)
    manifests = [read_manifest(shards), read_manifest(copied)]
    (once,) = leaks_between(manifests, manifests[1], "val")
    assert once.startswith(f"{shards / 'train'} and {copied / 'val'}: 3 ")
    said = refused(options(Path(f"{shards}=1,{copied}=1"), tmp_path, val_data=copied))
    assert "more such finding" not in said
    assert said.endswith(f"shard-tools verify {shards} {copied} --leaks")


def test_any_run_can_start_from_the_initial_weights_of_another(shards: Path, tmp_path: Path) -> None:
    """With the same seed it ends with the same bits, and with another one begins with the same."""
    config = options(shards, tmp_path, save_initial=True, tasks=("gender", "age"))
    assert train(config) == 0
    initial = config.run_dir / "checkpoints" / "initial.pt"
    assert read_checkpoint(initial)["step"] == 0
    assert not same(weights(config, "initial.pt"), weights(config, "last.pt"))
    more = {"save_initial": True, "pretrained": str(initial), "tasks": ("gender", "age")}
    repeated, other = options(shards, tmp_path, name="b", **more), options(shards, tmp_path, name="c", seed=1, **more)
    for one in (repeated, other):
        assert train(one) == 0
        assert same(weights(one, "initial.pt"), weights(config, "initial.pt"))
    assert same(weights(repeated, "last.pt"), weights(config, "last.pt"))
    assert not same(weights(other, "last.pt"), weights(config, "last.pt"))


def test_class_weights_are_computed_from_what_is_trained_on(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with the same numbers given ends with the same bits; the log and the record have them."""
    config = options(shards, tmp_path, limit=100, class_weights="balanced")
    assert train(config) == 0
    (part,) = parts_of([read_manifest(shards)], 100, 0)
    women, men = part.counts.values()
    assert women != men
    given = ((women + men) / (2 * women), (women + men) / (2 * men))
    printed = capsys.readouterr().out
    assert f"class weights: {given[0]:.4f} female, {given[1]:.4f} male" in printed
    trained = read_manifest(shards).splits["train"].samples
    of = f"--limit 100, seed 0: {part.images} of {trained} training images of shards of {part.subjects} subjects"
    assert of in printed
    written = json.loads((config.run_dir / "config.json").read_text())
    assert (written["class_weights"], written["class_weights_used"]) == ("balanced", list(given))
    assert train(numbers := options(shards, tmp_path, name="b", limit=100, class_weights=given)) == 0
    assert same(weights(numbers, "last.pt"), weights(config, "last.pt"))
    assert records(numbers)[0]["train"]["losses"] == records(config)[0]["train"]["losses"]
    assert records(config)[0]["train"]["images"] == 96  # three batches
    assert "with --limit 100, not 60" in refused(
        options(shards, tmp_path, resume=True, limit=60, class_weights="balanced")
    )


def test_a_sample_is_resumed_to_the_same_bits(shards: Path, tmp_path: Path) -> None:
    """With balanced weights, and dropout and batch normalisation in heads with hidden layers."""
    more: dict[str, Any] = {"schedule": "step", "warmup_epochs": 0.0, "head_layers": (8,), "head_norm": True}
    more |= {"limit": 100, "limit_seed": 2, "class_weights": "balanced"}
    begun, whole = options(shards, tmp_path, **more), options(shards, tmp_path, name="b", epochs=2, **more)
    assert train(begun) == 0
    assert train(replace(begun, resume=True, epochs=2)) == 0
    assert train(whole) == 0
    assert same(weights(begun, "last.pt"), weights(whole, "last.pt"))
    assert [record["train"]["losses"] for record in records(begun)] == [
        record["train"]["losses"] for record in records(whole)
    ]
