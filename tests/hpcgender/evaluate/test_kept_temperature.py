"""A temperature kept in a checkpoint: it goes where the file goes, and results of the checkpoint stay its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.checkpoint import load_trained, read_checkpoint
from hpcgender.checkpoint_file import KeptTemperature, digest, keep_temperature, kept_temperature
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.predict.model import load
from shard_tools.base.errors import UserError
from tests.hpcgender.evaluate.evaluating import evaluated, save_skilled_model
from tests.hpcgender.evaluate.examples import save_model

OTHER = KeptTemperature(value=2.5, fitted_on="7 images of x")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run whose evaluation on val kept its temperature, after one on test that fitted another."""
    run_dir = tmp_path_factory.mktemp("kept") / "run"
    best = save_skilled_model(run_dir / "checkpoints" / "best.pt", shards)
    os.utime(best, (10, 10))
    options = {"backend": "torchvision", "temperature_from": "train"}
    evaluated(shards, best, run_dir / "evaluations" / "kept", split="val", keep_temperature=True, **options)
    evaluated(shards, best, run_dir / "evaluations" / "newer", split="test", **options)
    return run_dir


def test_the_temperature_goes_with_the_file_and_results_stay_its_own(
    run_dir: Path, shards: Path, tmp_path: Path, capsys: Any
) -> None:
    best = run_dir / "checkpoints" / "best.pt"
    before = save_skilled_model(tmp_path / "before.pt", shards)
    assert digest(best) == digest(before)
    assert best.stat().st_mtime == 10  # it is no newer than it was
    assert best.read_bytes().startswith(before.read_bytes())
    found = evaluated(shards, best, run_dir / "evaluations" / "kept", split="val", backend="torchvision",
                      temperature_from="train", keep_temperature=True)  # fmt: skip
    assert found.gender
    assert found.gender.temperature
    kept = kept_temperature(best)
    assert kept
    assert kept.value == found.gender.temperature.value
    assert f"kept in {best}: temperature {kept.value:.3g}, fitted on {kept.fitted_on}" in capsys.readouterr().out
    assert kept.fitted_on.endswith(f" images of train of {shards.name}")

    alone = shutil.copy(best, tmp_path / "alone.pt")
    model = load(alone, backend="torchvision")
    assert model.decision.temperature == kept.value
    assert model.decision.words.startswith(f"confidence is calibrated by {kept.fitted_on}, as kept in alone.pt (")
    assert load(best, backend="torchvision").decision.calibrated_by.endswith("as kept in best.pt")
    # What is given wins.
    assert load(best, backend="torchvision", evaluation="newer").decision.calibrated_by.endswith("newer")
    assert load(best, backend="torchvision", evaluation="none").decision.temperature == 1
    assert load(best, backend="torchvision", threshold="equal-error").decision.temperature == kept.value


def test_it_is_replaced_and_damage_is_found(tmp_path: Path) -> None:
    path = save_model(tmp_path / "a.pt")
    plain = path.read_bytes()
    keep_temperature(path, digest(path), KeptTemperature(value=1.25, fitted_on="a long description of some images"))
    keep_temperature(path, digest(path), OTHER)
    assert kept_temperature(path) == OTHER
    assert len(path.read_bytes()) < len(plain) + 150
    assert read_checkpoint(path)["step"] == 42
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"2.5", b"3.5"))
    with pytest.raises(UserError, match=r"the temperature at the end of .*a\.pt is damaged: evaluate it with --keep"):
        kept_temperature(path)
    for cut in (1, 40, len(whole) - len(plain) + 1):
        path.write_bytes(whole[:-cut])
        with pytest.raises(UserError, match="is cut short, or not a checkpoint"):
            digest(path)
    damaged = bytearray(whole)
    damaged[len(plain) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged: its bytes do not match their checksum"):
        load_trained(path, torch.device("cpu"))


def test_a_checkpoint_that_was_replaced_meanwhile_gets_none(tmp_path: Path) -> None:
    path, evaluated_one = save_model(tmp_path / "a.pt"), save_model(tmp_path / "b.pt", seed=1)
    with pytest.raises(UserError, match="is another checkpoint than the one that was evaluated"):
        keep_temperature(path, digest(evaluated_one), OTHER)
    assert kept_temperature(path) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_temperature_must_be_one_that_predict_can_use(run_dir: Path, shards: Path) -> None:
    options: dict[str, Any] = {"data": shards, "checkpoint": run_dir, "keep_temperature": True}
    with pytest.raises(UserError, match="--keep-temperature keeps what --temperature-from fits: give that, too"):
        EvaluateConfig(**options).check()
    with pytest.raises(UserError, match="--keep-temperature is for predictions without --flip"):
        EvaluateConfig(**options, temperature_from="val", flip=True).check()
