"""What an evaluation does with results that are there already, with places that cannot be written, and with names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import COMMANDS, EvaluateConfig
from hpcgender.commands.predict import PredictConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.commands.show_batch import ShowBatchConfig
from hpcgender.evaluate.evaluation import evaluate
from shard_tools.base import lock
from shard_tools.base.commands import Made
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.evaluating import evaluated
from tests.hpcgender.evaluate.examples import save_model


def test_an_evaluation_is_never_replaced_by_another(
    partly_labelled: Path, shards: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", save_model(tmp_path / "other.pt", seed=1)
    first = evaluated(shards, checkpoint, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for data, model, options, message in (
        (partly_labelled, checkpoint, {}, "an evaluation of another data set"),
        (shards, other, {}, "an evaluation of another checkpoint"),
        (partly_labelled, other, {}, "an evaluation of another checkpoint and data set"),
        (shards, checkpoint, {"split": "val"}, "an evaluation of another split"),
        (shards, checkpoint, {"flip": True}, "an evaluation without --flip"),
        (shards, checkpoint, {"batch_size": 7}, "an evaluation with --batch-size 64"),
        (shards, checkpoint, {"precision": "bf16"}, "an evaluation with --precision fp32"),
        (shards, other, {"flip": True}, "an evaluation of another checkpoint, without --flip"),
    ):
        with pytest.raises(UserError, match=f"{out} holds {message}: give another --out, or remove it$"):
            EvaluateConfig(data=data, checkpoint=model, out=out, **options).check()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    capsys.readouterr()

    tempered = evaluated(shards, checkpoint, out, temperature_from="val")  # has all that was there, and more
    assert "holds this evaluation already: it is computed again" in capsys.readouterr().out
    assert tempered.gender
    assert replace(tempered.gender, temperature=None) == first.gender
    if tempered.gender.temperature:
        with pytest.raises(UserError, match="holds an evaluation with --temperature-from val: give another --out"):
            EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()
    (out / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged .*: remove it and evaluate again"):
        EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()


def test_two_commands_do_not_write_one_evaluation_together(
    shards: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setitem(lock.locked.__wrapped__.__kwdefaults__, "patience", 0.0)  # type: ignore[attr-defined]
    with (
        lock.locked(tmp_path / "work" / "lock", tmp_path, ""),
        pytest.raises(UserError, match=f"{tmp_path} is locked by process .*: wait for that, or give another --out"),
    ):
        evaluated(shards, checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert evaluated(shards, checkpoint, tmp_path).gender
    assert not (tmp_path / "work").exists()


def test_a_table_of_the_users_is_kept(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    keys = [key.decode() for key in read_manifest(shards).index("val")["key"]]
    table = tmp_path / "table.csv"
    table.write_text("key,glasses,light\n" + "".join(f"{key},{n % 2},{n % 3}\n" for n, key in enumerate(keys)))
    options: dict[str, Any] = {"data": shards, "checkpoint": checkpoint, "split": "val", "out": tmp_path / "out"}
    evaluate(EvaluateConfig(**options, table=table, by=("glasses",)))
    EvaluateConfig(**options, table=table).check()
    others: tuple[dict[str, Any], ...] = ({}, {"table": table, "by": ("light",)})
    for more in others:
        with pytest.raises(UserError, match="holds an evaluation with --by glasses: give another --out, or remove it"):
            EvaluateConfig(**options, **more).check()


def test_where_results_cannot_be_written_is_known_first(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling"):
        with pytest.raises(UserError, match="is no directory: give another one as --out"):
            EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()
    with pytest.raises(UserError, match=r"cannot write into /proc \(.*\): give another directory as --out"):
        EvaluateConfig(data=shards, checkpoint=checkpoint, out=Path("/proc/new/out")).check()
    for file, config in (
        ("x.html", ReportConfig(inputs=(tmp_path,), out=Path("/proc/x.html"))),
        ("x.csv", CompareConfig(evaluated=(tmp_path, tmp_path), csv=Path("/proc/x.csv"))),
        ("x.png", ShowBatchConfig(data=shards, out=Path("/proc/x.png"))),
    ):
        with pytest.raises(UserError, match=rf"cannot write into /proc \(.*\): name another directory for {file}"):
            config.check()
    EvaluateConfig(data=shards, checkpoint=checkpoint, out=tmp_path / "new" / "out").check()
    assert not (tmp_path / "new").exists()


def test_a_run_means_its_best_checkpoint(shards: Path, checkpoint: Path) -> None:
    run_dir = checkpoint.parents[1]
    for given in (run_dir, checkpoint.parent, checkpoint):
        config = EvaluateConfig(data=shards, checkpoint=given)
        config.check()
        assert config.checkpoint == checkpoint
        assert config.out_dir == run_dir / "evaluations" / f"{shards.name}-test"
        assert PredictConfig(images=(), checkpoint=given).checkpoint_path == checkpoint
    with pytest.raises(UserError, match=f"no checkpoint {shards}/checkpoints/best.pt: give one as --checkpoint"):
        EvaluateConfig(data=shards, checkpoint=shards).check()
    with pytest.raises(UserError, match=r"is cut short, or not a checkpoint of hpcgender"):
        EvaluateConfig(data=shards, checkpoint=shards / "manifest.json").check()


def test_a_chain_after_training_does_not_meet_earlier_results(tmp_path: Path) -> None:
    (command,) = (one for one in COMMANDS if one.name == "evaluate")
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    made = Made(data=tmp_path / "data", checkpoint=best, tasks=("gender",), final=False)
    out = tmp_path / "run" / "evaluations" / "data-test"
    (out / "submissions").mkdir(parents=True)
    assert command.following(made)
    (out / "evaluation.json").write_text("{}")
    with pytest.raises(UserError, match=f"{out} holds results of an earlier checkpoint, and is not replaced"):
        command.following(made)
    assert command.following(replace(made, final=True))  # the training is complete: the checkpoint stays
    (out / "evaluation.json").rename(out / "predictions.csv")
    (out / "work").mkdir()
    (out / "work" / "predictions.json").write_text("{}")  # of an evaluation that was killed
    with pytest.raises(UserError, match=f"{out} holds results of an earlier checkpoint"):
        command.following(made)
