"""Every line of a log that programs read is parsed as it was written, and no other line is taken for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcgender.log_lines import AttemptLine, EpochLine, SplitLosses, StepLine, last_attempt, step_under_way
from hpcgender.train.log import epoch_line
from hpcgender.train.progress import EpochProgress
from shard_tools.base.text import duration, seconds_of
from tests.hpcgender.status_records import EPOCH

count = st.integers(1, 10**7)
fraction = st.floats(0, 1)
size = st.floats(0, 1e7)
loss = st.one_of(st.floats(0, 1e4), st.just(float("inf")))
accuracy = st.one_of(st.none(), fraction)
names = st.text(st.characters(categories=("L", "N"), include_characters="-_"), min_size=1, max_size=12)
hosts = st.lists(st.text("abcxyz0123456789-.", min_size=1, max_size=20), max_size=3).map(tuple)
splits = st.builds(
    SplitLosses, loss=loss, accuracy=accuracy, class_accuracy=st.dictionaries(names, fraction, max_size=3)
)
epoch_lines = st.builds(
    EpochLine,
    epoch=count,
    epochs=count,
    train=splits,
    val=st.one_of(st.none(), splits),
    age_mae=st.one_of(st.none(), st.floats(0, 100)),
    lr=st.floats(1e-9, 10),
    images_per_s=size,
    data_wait=fraction,
    eta=size,
)
step_lines = st.builds(
    StepLine, step=count, steps=count, epoch=count, epochs=count, loss=loss, images_per_s=size, left=size
)


@given(epoch_lines)
def test_the_line_of_an_epoch(line: EpochLine) -> None:
    parsed = EpochLine.parse(line.text())
    assert parsed is not None
    assert parsed.text() == line.text()
    assert (parsed.epoch, parsed.epochs) == (line.epoch, line.epochs)
    assert (parsed.val is None) == (line.val is None)
    for ours, theirs in ((parsed.train, line.train), (parsed.val, line.val)):
        if ours is None or theirs is None:
            continue
        assert list(ours.class_accuracy) == list(theirs.class_accuracy)
        assert (ours.accuracy is None) == (theirs.accuracy is None)
        assert ours.loss == theirs.loss or abs(ours.loss - theirs.loss) < 1e-4
    assert abs(parsed.data_wait - line.data_wait) < 1e-3
    assert not StepLine.parse(line.text())
    assert not AttemptLine.parse(line.text())


@given(step_lines)
def test_the_line_of_a_step(line: StepLine) -> None:
    parsed = StepLine.parse(line.text())
    assert parsed is not None
    assert parsed.text() == line.text()
    assert (parsed.step, parsed.steps, parsed.epoch, parsed.epochs) == (line.step, line.steps, line.epoch, line.epochs)
    assert not EpochLine.parse(line.text())
    assert not AttemptLine.parse(line.text())


@given(
    st.builds(
        AttemptLine,
        command=st.sampled_from(["train", "pack morph", "show-batch"]),
        nodes=count,
        hosts=hosts,
        processes=count,
        threads=count.map(str),
        rendezvous=st.sampled_from(["node1:18890", "127.0.0.1:9"]),
    )
)
def test_the_line_of_an_attempt(line: AttemptLine) -> None:
    assert AttemptLine.parse(line.text()) == line
    alone = replace(line, processes=1, threads="1", rendezvous="")
    assert AttemptLine.parse(alone.text()) == alone


@given(size)
def test_durations(seconds: float) -> None:
    assert duration(seconds_of(duration(seconds))) == duration(seconds)


def test_training_writes_lines_that_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    with EpochProgress(3, 50, 400, 64, first_step=100, line_every_s=0.0) as progress:
        progress.update(101, torch.tensor(0.5))
    step = StepLine.parse(capsys.readouterr().out.rstrip("\n"))
    assert step is not None
    assert (step.step, step.steps, step.epoch, step.epochs, step.loss) == (101, 400, 3, 50, 0.5)
    line = EpochLine.parse(epoch_line(EPOCH))
    assert line is not None
    assert line.val is not None
    assert (line.epoch, line.epochs, line.val.class_accuracy) == (12, 50, {"female": 0.9375, "male": 0.9684})


@pytest.mark.parametrize(
    ("written", "resembles"),
    [("loss 0.3000", "loss much"), ("900 img/s", "9.0.0 img/s"), ("2m00s left", "soon left")],
)
def test_a_line_that_merely_resembles_a_steps(written: str, resembles: str) -> None:
    line = StepLine(step=1, steps=2, epoch=1, epochs=2, loss=0.3, images_per_s=900.0, left=120.0).text()
    assert written in line
    assert StepLine.parse(line.replace(written, resembles)) is None
    assert step_under_way(line.replace(written, resembles)) is None


@pytest.mark.parametrize(
    ("written", "resembles"),
    [
        ("train loss ", "train loss of "),
        ("val loss ", "val loss about "),
        ("data wait ", "data wait x"),
        ("lr ", "lr x"),
    ],
)
def test_a_line_that_merely_resembles_an_epochs(written: str, resembles: str) -> None:
    line = epoch_line(EPOCH)
    assert written in line
    assert EpochLine.parse(line.replace(written, resembles)) is None


def test_a_step_is_under_way_until_its_epoch_ends() -> None:
    step = StepLine(step=30, steps=120, epoch=12, epochs=50, loss=0.3, images_per_s=900.0, left=120.0)
    later = replace(step, step=60)
    assert step_under_way("") is None
    assert step_under_way(f"launch: x\n{step.text()}\nother words\n{later.text()}\n") == later
    assert step_under_way(f"{step.text()}\n{epoch_line(EPOCH)}\n") is None
    assert step_under_way(f"{epoch_line(EPOCH)}\n{step.text()}\nbest accuracy so far\n") == step


def test_the_last_attempt_of_a_log() -> None:
    two = AttemptLine(command="train", nodes=2, hosts=("node1", "node2"), rendezvous="node1:18890").text()
    alone = AttemptLine(command="pack morph", nodes=1).text()
    assert last_attempt(f"a\n{two}\nb\n{two}\nc\n") == f"{two}\nc\n"
    assert last_attempt(f"a\n{alone}\nb\n") == f"{alone}\nb\n"
    assert last_attempt("a\nlaunch: requeued\n") == "a\nlaunch: requeued\n"
