"""Training that is killed or asked to stop, at any moment, ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.checkpoint import save_checkpoint
from hpcgender.commands.train import TrainConfig
from hpcgender.inference.validation import validate
from hpcgender.train import loop
from shard_tools.base.errors import UserError
from tests.conftest import Run

OPTIONS = (
    *(
        "--model",
        "compact",
        "--image-size",
        32,
        "--batch-size",
        8,
        "--epochs",
        5,
        "--lr",
        0.01,
        "--tasks",
        "gender",
        "age",
    ),
    *("--optimizer", "adamw", "--ema", 0.9, "--mixup", 0.2, "--augment", "degraded", "--deterministic"),
    *("--checkpoint-minutes", 0.0001, "--keep", 2, "--resume"),
)
"""Everything that has a state. Checkpoints come with every step but the first ones."""


def command(shards: Path, world_size: int) -> list[str]:
    launch = ("hpcgender.launch", "--nodes", world_size, "--") if world_size > 1 else ("hpcgender",)
    return [sys.executable, "-m", *map(str, (*launch, "train", "--data", shards, *OPTIONS))]


def newest(cwd: Path) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    steps = [int(path.stem[5:]) for path in (cwd / "runs" / "train" / "checkpoints").glob("step-*.pt")]
    return max(steps, default=0)


def run_until(arguments: list[str], cwd: Path, step: int | None, how: signal.Signals) -> tuple[int, str]:
    """Runs a training, of which all processes or the first get a signal soon after a checkpoint of that step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    output = []
    with process:
        for line in process.stdout:
            output.append(line)
            if step is not None and line.startswith(("training ", "resuming ")):
                while newest(cwd) < step and process.poll() is None:
                    time.sleep(0.005)
                time.sleep(random.uniform(0, 0.1))
                if how == signal.SIGKILL:
                    for pid in processes_in(cwd):
                        with suppress(ProcessLookupError):
                            os.kill(pid, how)
                else:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, how)
    return process.returncode, "".join(output)


def processes_in(cwd: Path) -> list[int]:
    """The processes that work in a directory: all that a launch started, in whatever session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # it ended meanwhile
            if path.readlink() == cwd:
                found.append(int(path.parent.name))
    return found


def result(cwd: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint, and the records without what depends on the clock."""
    content = torch.load(cwd / "runs" / "train" / "checkpoints" / "last.pt", weights_only=True)
    clock = ("images_per_s", "data_wait", "peak_memory_mb", "seconds", "eta")
    lines = (cwd / "runs" / "train" / "metrics.jsonl").read_text().splitlines()
    return content, [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def assert_equal(a: Any, b: Any, place: str = "") -> None:
    """Equal to the last bit, however deep."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{place}/{number}")
    else:
        assert a == b, place


@pytest.mark.slow
@pytest.mark.timeout(1500)  # eight trainings of up to two processes each
@pytest.mark.parametrize(("world_size", "attempts"), [(1, 5), (2, 3)])
def test_killed_and_stopped_repeatedly_it_ends_with_the_same_bits(
    shards: Path, tmp_path: Path, world_size: int, attempts: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    code, output = run_until(command(shards, world_size), whole, None, signal.SIGKILL)
    assert code == 0, output
    draw = random.Random(world_size)
    steps = []
    for attempt in range(attempts):
        how = (signal.SIGKILL, signal.SIGTERM)[attempt % 2]
        step = newest(broken) + draw.randint(14, 20) if attempt else 0
        code, output = run_until(command(shards, world_size), broken, step, how)
        assert code in ((-signal.SIGKILL, 0) if how == signal.SIGKILL else (99, 0)), output
        steps.append(newest(broken))
        if code == 0:
            break
    code, output = run_until(command(shards, world_size), broken, None, signal.SIGKILL)
    assert code == 0, output
    assert len(set(steps)) >= attempts - 1, steps  # it was resumed in the middle, again and again
    (expected, records), (content, own_records) = result(whole), result(broken)
    for of_run in (expected, content):
        del of_run["config"], of_run["seconds"]
    assert_equal(content, expected)
    assert own_records == records
    code, output = run_until(command(shards, 1), broken, None, signal.SIGKILL)
    assert code == 0
    assert "runs/train is finished: 5 epochs" in output


def test_another_world_size_resumes_with_the_same_batches(shards: Path, tmp_path: Path) -> None:
    code, output = run_until(command(shards, 2), tmp_path, 20, signal.SIGTERM)
    assert code == 99, output
    assert "stopped by SIGTERM after step" in output
    code, output = run_until(command(shards, 1), tmp_path, None, signal.SIGTERM)
    assert code == 0, output
    assert "resuming runs/train" in output
    _, records = result(tmp_path)
    assert [record["train"]["images"] for record in records] == [256] * 5


def test_stop_after_asks_to_be_requeued(shards: Path, tmp_path: Path, run: Run) -> None:
    train = ("hpcgender", "train", "--data", shards, "--model", "resnet18", "--image-size", 32, "--batch-size", 8)
    done = run(*train, "--epochs", 500, "--stop-after", 0.4, cwd=tmp_path)
    assert done.returncode == 99, done.stderr
    assert "stopped by --stop-after 0.4 after step" in done.stdout
    assert (tmp_path / "runs" / "train" / "checkpoints" / "last.pt").exists()
    done = run(*train, "--epochs", 500, "--stop-after", 0.001, "--resume", cwd=tmp_path)
    assert done.returncode == 2
    assert "before the first step: give it more time" in done.stderr


def test_nonfinite_gradients_stop_the_run_and_name_the_images(shards: Path, tmp_path: Path, run: Run) -> None:
    train = ("hpcgender", "train", "--data", shards, "--model", "vgg11", "--image-size", 32, "--batch-size", 8)
    diverging = ("--lr", 1e30, "--warmup-epochs", 0, "--epochs", 1)
    done = run(*train, *diverging, cwd=tmp_path)
    assert done.returncode == 2
    assert "NaN or infinite gradients at step" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "_0" in done.stderr  # MORPH's keys
    assert not list((tmp_path / "runs" / "train" / "checkpoints").glob("step-*"))


def test_an_epoch_that_resumes_at_its_end_knows_its_speed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the time limit comes during validation: no step is left to be timed."""
    config = TrainConfig(
        data=shards, runs=tmp_path, name="a", model="compact", image_size=32, batch_size=32, epochs=3, resume=True
    )

    def stopped(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return validate(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", stopped)
        assert loop.train(config) == 99
    content = torch.load(tmp_path / "a" / "checkpoints" / "last.pt", weights_only=True)
    assert (content["epoch"], content["number"]) == (0, 8)
    assert loop.train(config) == 0
    first = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < first["images_per_s"] <= 256 / content["seconds"]
    assert first["eta"] >= 2 * content["seconds"] > 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tally": None}, "tally must be a table, not null"),
        ({"number": "3"}, "number must be a whole number, not '3'"),
        ({"norms": {}}, r"holds another state than the run has \('values'\)"),
        ({"model": {}}, r"holds another state than the run has \(Error\(s\) in loading state_dict"),
    ],
)
def test_a_checkpoint_of_another_state_is_to_be_moved_away(
    change: dict[str, Any], why: str, shards: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        data=shards, runs=tmp_path, name="a", model="compact", image_size=32, batch_size=32, epochs=1, resume=True
    )
    assert loop.train(config) == 0
    path = (tmp_path / "a" / "checkpoints" / "last.pt").resolve()
    content = torch.load(path, weights_only=True)
    content.pop("format")
    save_checkpoint(path, {**content, **change})
    with pytest.raises(UserError, match=rf"{path.name} .*{why}.*: move it away, and the run resumes from the one"):
        loop.train(replace(config, epochs=2))
