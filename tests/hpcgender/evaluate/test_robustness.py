"""evaluate --corrupt on drawn faces: its predictions and scores, on any number of processes, killed and resumed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.config import ReadConfig
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from hpcgender.evaluate.calibration import calibration
from hpcgender.evaluate.groups import coded_column
from hpcgender.evaluate.predictions import read_predictions
from hpcgender.robustness.corrupted import Corrupted, corrupt_all, read_corrupted
from hpcgender.robustness.corruptions import CORRUPTIONS, corrupt
from hpcgender.robustness.first import first_harmed
from hpcgender.robustness.results import Robustness, find_robustness
from hpcgender.robustness.scores import robustness
from hpcgender.robustness.tables import harmed_first, loses_most, losing_most
from hpcgender.robustness.write import check_numbers
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.conftest import REPOSITORY, Run
from tests.hpcgender.evaluate.evaluating import damaged, evaluated
from tests.hpcgender.evaluate.examples import predictions, save_model

FILES = ("robustness.json", "robustness.parquet", "robustness.png", "predictions.parquet")
KILLED = -9


def found_in(out: Path) -> Robustness:
    found = find_robustness(out)
    assert found
    return found


def test_killed_and_resumed_on_other_processes_it_has_the_same_bytes(
    run: Run, shards: Path, skilled: Path, tmp_path: Path
) -> None:
    damaged(shards, tmp_path / "data", "val", 7)
    data = ("--data", tmp_path / "data", "--split", "val", "--batch-size", 4, "--max-bad", 0.2)
    options = ("--checkpoint", skilled, *data, "--corrupt", "shot-noise", "blur")
    whole, out = tmp_path / "whole", tmp_path / "out"
    done = run("hpcgender", "evaluate", *options, "--out", whole)
    assert done.returncode == 0, done.stderr
    assert "accuracy of corrupted images, %, by severity\n" in done.stdout
    killed = run(
        *("tests.hpcgender.inference.interrupted", "SIGKILL", "shot-noise", 3, "evaluate", *options, "--out", out),
        cwd=REPOSITORY,
    )
    assert killed.returncode == KILLED, killed.stderr
    assert not (out / "robustness.json").exists()
    for processes in (2, 2):  # a finished evaluation is done anew
        again = run("hpcgender.launch", "--nodes", processes, "--", "evaluate", *options, "--out", out)
        assert again.returncode == 0, again.stderr
        for name in FILES:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (out / "work").exists()
    assert found_in(out).names == ("blur", "shot-noise")


def test_predictions_are_of_the_corrupted_pixels(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    evaluated(shards, checkpoint, tmp_path, corrupt=("gaussian-noise", "occlusion"))
    found = read_corrupted(tmp_path, ("gaussian-noise", "occlusion"), read_predictions(tmp_path).key)
    manifest, cpu = read_manifest(shards), torch.device("cpu")
    trained, keys = load_trained(checkpoint, cpu), manifest.index("test")["key"]
    order = read_predictions(tmp_path).key.tolist()
    loader = EvaluationLoader(
        ReadConfig(data=shards), manifest, "test", batch_size=5, image_size=32, ranks=Ranks(0, 1, cpu)
    )
    with closing(loader), torch.inference_mode():
        for batch in loader.epoch(0):
            clean = to_pixels(batch.images).permute(0, 2, 3, 1).numpy()
            for name in found:
                for severity in (1, 5):
                    pixels = [corrupt(p, name, severity, keys[n]) for p, n in zip(clean, batch.samples, strict=True)]
                    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
                    outputs = trained.model(images)
                    rows = [order.index(keys[n].decode()) for n in batch.samples]
                    for values, expected in (
                        (found[name].logit, outputs.gender[:, 1] - outputs.gender[:, 0]),
                        (found[name].age, outputs.age),
                    ):
                        np.testing.assert_allclose(values[rows, severity - 1], expected, rtol=1e-3, atol=1e-4)


def test_scores_are_those_of_the_predictions(shards: Path, skilled: Path, tmp_path: Path) -> None:
    result = evaluated(shards, skilled, tmp_path, split="train", corrupt=("over-exposure", "grey"))
    assert result.gender
    assert result.age
    found, clean = found_in(tmp_path), read_predictions(tmp_path)
    assert found.names == ("over-exposure", "grey")
    assert found.clean.accuracy == pytest.approx(result.gender.accuracy.value)
    assert found.clean.age_mae == pytest.approx(result.age.mae.value)
    assert found.clean.calibration_error == result.gender.calibration.ece
    corrupted = read_corrupted(tmp_path, found.names, clean.key)
    right = clean.prediction == clean.label
    losses = []
    for one in found.corruptions:
        of_corruption = corrupted[one.name]
        for place, of_severity in enumerate(one.severities):
            scores, logit = of_severity.scores, of_corruption.logit[:, place]
            still = (logit > 0) == (clean.label == 1)
            assert scores.accuracy == pytest.approx(still.mean())
            assert scores.accuracy_lost
            assert scores.accuracy_lost.value == pytest.approx(right.mean() - still.mean())
            assert scores.calibration_error == calibration(logit, clean.label == 1).ece
            assert scores.recalls["female"] == pytest.approx(still[clean.label == 0].mean())
            years = np.abs(of_corruption.age[:, place] - clean.age).mean()
            assert scores.age_mae == pytest.approx(years)
            assert scores.age_mae_added
            assert scores.age_mae_added.value == pytest.approx(years - result.age.mae.value, abs=1e-9)
        still_5 = (of_corruption.logit > 0) == (clean.label == 1)[:, None]
        losses.append(right - still_5.mean(1))
        assert one.scores.accuracy == pytest.approx(still_5.mean())
    table = found.tables[0]
    assert (table.column, table.measure) == ("gender", "accuracy_lost")
    for code, group in enumerate(table.groups):
        assert group.score.value == pytest.approx(np.mean(losses, axis=0)[clean.label == code].mean())
    assert found.scores.accuracy == pytest.approx(np.mean([one.scores.accuracy for one in found.corruptions]))


def test_a_temperature_calibrates_corrupted_images_too() -> None:
    clean = predictions(2000, 300)
    logit, age = (np.repeat(one[:, None], 5, axis=1) for one in (3 * clean.logit, clean.age_prediction))
    known = clean.gender_known
    raw = robustness(clean, {"blur": Corrupted(logit=logit, age=age)})
    calibrated = robustness(clean, {"blur": Corrupted(logit=logit, age=age)}, 2.0)
    label = clean.label[known] == 1
    assert raw.scores.calibration_error == pytest.approx(calibration(3 * clean.logit[known], label).ece)
    assert calibrated.scores.calibration_error == pytest.approx(calibration(1.5 * clean.logit[known], label).ece)
    assert calibrated.clean.calibration_error == pytest.approx(calibration(0.5 * clean.logit[known], label).ece)
    assert calibrated.scores.accuracy == raw.scores.accuracy


def test_what_is_no_number_is_refused() -> None:
    clean = predictions(200)
    logit, age = (np.repeat(one[:, None], 5, axis=1) for one in (clean.logit, clean.age_prediction))
    check_numbers(clean, {"blur": Corrupted(logit=logit, age=age)})  # although some do not decode
    first = int(np.flatnonzero(~np.isnan(clean.logit))[3])
    logit[first, 2] = np.nan
    with pytest.raises(UserError, match=f"gives no number for 1 image with blur, the first one {clean.key[first]}: "):
        check_numbers(clean, {"blur": Corrupted(logit=logit, age=age)})


def test_images_are_corrupted_alike_by_any_number_of_threads() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    keys = [b"%d" % number for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for name in CORRUPTIONS:
            assert np.array_equal(
                corrupt_all(pixels, name, 3, keys, pool),
                [corrupt(one, name, 3, key) for one, key in zip(pixels, keys, strict=True)],
            )


def test_the_group_that_loses_most_is_found() -> None:
    clean = predictions(4000, 500)
    hit = clean.group == "Black"
    logit = np.repeat(clean.logit[:, None], 5, axis=1)
    logit[hit] = np.where(np.arange(5) > 2, -logit[hit], logit[hit])  # its predictions turn over from severity 4 on
    age = np.repeat(clean.age_prediction[:, None], 5, axis=1)
    found = robustness(clean, {"blur": Corrupted(logit=logit, age=age)})
    assert loses_most(found.tables, "accuracy_lost") in (
        "Black (group)",
        "female x Black (gender x group)",
        "male x Black (gender x group)",
    )
    assert loses_most(found.tables, "age_mae_added") == ""
    (table,) = (one for one in found.tables if (one.column, one.measure) == ("group", "accuracy_lost"))
    of_group = {group.value: group.score for group in table.groups}
    assert of_group["White"].value == 0
    known = clean.gender_known & hit
    accuracy = float((clean.prediction == clean.label)[known].mean())
    assert of_group["Black"].value == pytest.approx(0.4 * (2 * accuracy - 1), abs=0.01)
    assert of_group["Black"].low < of_group["Black"].value < of_group["Black"].high
    (line,) = (line for line in losing_most(found) if line.startswith("accuracy by group: "))
    assert line.startswith("accuracy by group: Black loses most, ")
    assert line.endswith(": more than chance")
    (first,) = found.corruptions[0].first
    assert (first.measure, first.severity) == ("accuracy_lost", 4)
    assert first.value in ("Black", "female x Black", "male x Black")
    assert 0 < first.lost.low < first.lost.value == pytest.approx(2 * accuracy - 1, abs=0.05)
    (line,) = harmed_first(found)
    assert line.startswith(f"accuracy with blur: {first.value} ({first.column}) loses first, with severity 4: ")
    unharmed = robustness(clean, {"blur": Corrupted(logit=np.repeat(clean.logit[:, None], 5, axis=1), age=age)})
    assert not any(line.endswith("more than chance") for line in losing_most(unharmed))
    assert list(harmed_first(unharmed)) == []


def test_where_nobody_is_harmed_a_group_rarely_loses_first() -> None:
    generator = np.random.default_rng(2)
    images, subjects, cases = 400, 100, 60
    clusters = np.arange(images) % subjects
    named = 0
    for _ in range(cases):
        columns = {
            name: coded_column(np.array(list("abcd"), dtype=object)[generator.integers(0, kinds, subjects)[clusters]])
            for name, kinds in (("one", 2), ("two", 3))
        }
        of_subjects = generator.choice([-1.0, 0.0, 1.0], (subjects, 5), p=[0.15, 0.7, 0.15])
        lost = {name: of_subjects[generator.permutation(subjects)][clusters] for name in ("blur", "jpeg")}
        named += bool(first_harmed(columns, clusters, lost, "accuracy_lost"))
    assert named / cases < 0.12


def test_a_model_of_age_alone_has_its_errors_alone(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "best.pt", tasks=("age",))
    evaluated(shards, model, tmp_path / "out", corrupt=("contrast",))
    found = found_in(tmp_path / "out")
    assert (found.scores.accuracy_lost, np.isnan(found.scores.accuracy)) == (None, True)
    assert found.scores.age_mae_added
    assert {table.measure for table in found.tables} == {"age_mae_added"}
    printed = capsys.readouterr().out
    assert "age MAE of corrupted images" in printed
    assert "accuracy of corrupted images" not in printed


def test_what_an_evaluation_has_of_corrupted_images_is_kept(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": shards, "checkpoint": checkpoint, "out": tmp_path}
    evaluated(shards, checkpoint, tmp_path, corrupt=("grey",))
    before = found_in(tmp_path)
    for corrupted in ((), ("blur",)):
        with pytest.raises(
            UserError, match="holds an evaluation with --corrupt grey: give another --out, or remove it"
        ):
            EvaluateConfig(**options, corrupt=corrupted).check()
    evaluated(shards, checkpoint, tmp_path, corrupt=("darkness", "grey", "grey"))
    assert found_in(tmp_path).names == ("darkness", "grey")
    assert found_in(tmp_path).corruptions[1] == before.corruptions[0]
    keys = read_predictions(tmp_path).key
    with pytest.raises(
        UserError, match=r"robustness.parquet has other images than the predictions beside it: evaluate"
    ):
        read_corrupted(tmp_path, ("grey",), keys[:-1])
    (tmp_path / "robustness.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read .*robustness.parquet .*: evaluate again with --corrupt"):
        read_corrupted(tmp_path, ("grey",), keys)


def test_an_evaluation_without_them_leaves_none_of_an_earlier_one(
    shards: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(shards, checkpoint, tmp_path, corrupt=("grey",))
    assert "computed again" not in capsys.readouterr().out
    evaluated(shards, checkpoint, tmp_path, corrupt=("grey", "contrast"))
    assert (
        "holds this evaluation already: it is computed again, 11 predictions of each image\n" in capsys.readouterr().out
    )
    (tmp_path / "evaluation.json").unlink()  # as where one was stopped between
    evaluated(shards, checkpoint, tmp_path)
    assert [file.name for file in tmp_path.glob("robustness*")] == []


def test_all_means_all_and_an_unknown_one_is_refused(shards: Path, checkpoint: Path) -> None:
    every = EvaluateConfig(data=shards, checkpoint=checkpoint, corrupt=("all",))
    every.check()
    assert every.corruptions == tuple(CORRUPTIONS)
    assert EvaluateConfig(data=shards, checkpoint=checkpoint).corruptions == ()
    with pytest.raises(UserError, match=r"^unknown corruption 'motion_blur': did you mean motion-blur\?$"):
        EvaluateConfig(data=shards, checkpoint=checkpoint, corrupt=("grey", "motion_blur")).check()
