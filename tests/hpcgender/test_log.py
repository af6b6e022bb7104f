from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from hpcgender.distributed import Ranks
from hpcgender.train.log import EpochRecord, RunLog, epoch_line, peak_memory_mb
from hpcgender.train.progress import EpochProgress
from shard_tools.base.errors import UserError
from tests.hpcgender.status_records import EPOCH, NAN, scores

ALONE = Ranks(0, 1, torch.device("cpu"))


def record(epoch: int = 12, step: int = 1200) -> EpochRecord:
    return replace(EPOCH, epoch=epoch, step=step)


def test_the_epoch_line() -> None:
    assert epoch_line(record()) == (
        "epoch 12/50 | train loss 0.1023 acc 96.69% | val loss 0.1201 acc 95.97% (female 93.75% male 96.84%) "
        "| lr 1.0e-02 | 11832 img/s | data wait 0.4% | eta 3h12m"
    )


def test_the_epoch_line_of_a_model_that_tells_the_age_too() -> None:
    both = replace(record(), val=scores(0.1201, 0.9597, {"female": 0.9375, "male": 0.9684}, age_mae=5.118))
    assert epoch_line(both) == (
        "epoch 12/50 | train loss 0.1023 acc 96.69% | val loss 0.1201 acc 95.97% (female 93.75% male 96.84%) "
        "| val age MAE 5.12 | lr 1.0e-02 | 11832 img/s | data wait 0.4% | eta 3h12m"
    )


def test_the_epoch_line_of_a_model_of_age_alone_has_no_accuracy() -> None:
    age = scores(6.5, NAN, {}, age_mae=5.118)
    assert epoch_line(replace(record(), train=age, val=age)) == (
        "epoch 12/50 | train loss 6.5000 | val loss 6.5000 | val age MAE 5.12 "
        "| lr 1.0e-02 | 11832 img/s | data wait 0.4% | eta 3h12m"
    )


def logged(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def board(run_dir: Path) -> EventAccumulator:
    curves = EventAccumulator(str(run_dir / "tensorboard"))
    curves.Reload()
    return curves


def curve(run_dir: Path, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in board(run_dir).Scalars(name)]


def test_metrics_and_tensorboard_get_all_that_is_known(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 0)
    log.write(record())
    log.close()
    (content,) = logged(tmp_path)
    assert content["val"]["class_accuracy"] == {"female": 0.9375, "male": 0.9684}
    assert content["val"]["roc_auc"] is None
    assert curve(tmp_path, "val/f1/female") == [(1200, 0.9375)]
    assert curve(tmp_path, "gradient_norm_max") == [(1200, 7.25)]
    assert curve(tmp_path, "peak_memory_mb") == [(1200, 2048.5)]
    names = set(board(tmp_path).Tags()["scalars"])
    measured = {"lr", "images_per_s", "data_wait", "gradient_norm", "bad_images", "seconds", "eta", "epoch"}
    assert names > measured | {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "macro_f1")}
    assert not names & {"val/roc_auc", "val/age_mae"}


def wait_for_the_next_second() -> None:
    """TensorBoard orders its files by the second, then by what is no order."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.05)


@pytest.mark.parametrize("steps_on", [0, 3], ids=["after an epoch", "within one"])
def test_a_log_gone_on_with_drops_what_came_after_the_checkpoint(tmp_path: Path, steps_on: int) -> None:
    log = RunLog(tmp_path, 0, 0)
    for epoch in (1, 2, 3):
        log.write(replace(record(epoch, 10 * epoch), lr=0.25))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "val": {"lo')  # killed while it wrote
    wait_for_the_next_second()
    RunLog(tmp_path, 2, 20 + steps_on).close()
    assert curve(tmp_path, "lr") == [(10, 0.25), (20, 0.25)]
    wait_for_the_next_second()
    log = RunLog(tmp_path, 2, 20 + steps_on)
    log.write(replace(record(3, 30), lr=0.5))
    log.close()
    assert [content["epoch"] for content in logged(tmp_path)] == [1, 2, 3]
    assert logged(tmp_path)[2]["lr"] == 0.5
    assert curve(tmp_path, "lr")[2:] == [(30, 0.5)]


def test_a_damaged_log_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n\0\0\0\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is damaged .*: remove that line"):
        RunLog(tmp_path, 2, 20)


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: .*No space left .*--resume"):
        log.write(record())
    log.close()


def test_the_peak_memory_of_a_process_is_what_linux_says() -> None:
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    # Before this process was Python, it may have been a copy of a larger one.
    assert 0.99 * int(kib) * 1024 / 1e6 < peak_memory_mb(ALONE) < 10 * int(kib) * 1024 / 1e6


def test_a_long_epoch_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with EpochProgress(3, 50, 400, 64, first_step=100, line_every_s=0.0) as progress:
        progress.update(101, torch.tensor(0.5))
        progress.update(400, torch.tensor(0.25))
    out, err = capsys.readouterr()
    assert not err
    first, last = out.splitlines()
    assert re.fullmatch(r"step 101/400 of epoch 3/50 \| loss 0.5000 \| \d+ img/s \| \w+ left", first)
    assert re.fullmatch(r"step 400/400 of epoch 3/50 \| loss 0.2500 \| \d+ img/s \| 0s left", last)


def test_an_epoch_that_is_soon_over_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    with EpochProgress(3, 50, 2, 64) as progress:
        progress.update(1, torch.tensor(0.5))
        progress.update(2, torch.tensor(0.5))
    assert capsys.readouterr() == ("", "")


ON_A_TERMINAL = """
import torch
from hpcgender.train import progress

progress.BAR_EVERY_S = 0.0
with progress.EpochProgress(3, 50, 400, 64) as shown:
    for step in range(1, 401):
        shown.update(step, torch.tensor(0.125))
        if step == 200:
            print("said meanwhile", flush=True)
print("epoch 3/50 is over")
"""


@pytest.fixture
def on_a_terminal() -> Callable[[], tuple[str, str]]:
    """Runs the program above with stderr on a terminal; returns what it wrote to stdout, and there."""

    def run() -> tuple[str, str]:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        program = [sys.executable, "-c", ON_A_TERMINAL]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
            os.close(theirs)
            seen = b""
            try:
                while piece := os.read(ours, 65536):
                    seen += piece
            except OSError:  # Linux says so of a terminal whose other end is closed
                pass
            assert process.stdout
            said = process.stdout.read()
        os.close(ours)
        assert process.returncode == 0, seen.decode()
        return said.decode(), seen.decode()

    return run


def test_a_terminal_gets_a_bar_and_the_log_stays_clean(on_a_terminal: Callable[[], tuple[str, str]]) -> None:
    log, terminal = on_a_terminal()
    assert log == "said meanwhile\nepoch 3/50 is over\n"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal)
    assert "epoch 3/50" in plain
    assert "400/400" in plain
    assert re.search(r"loss 0\.1250 \| \d+ img/s \| \w+ left", plain)
