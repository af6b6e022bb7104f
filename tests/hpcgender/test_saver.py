from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.checkpoint import read_checkpoint
from hpcgender.train.saver import Saver, latest
from shard_tools.base.errors import UserError
from tests.hostile.checkpoints import BAD_STREAMS, rewritten, saved, sealed
from tests.hpcgender.test_checkpoint import files_no_longer_than

LENGTH = 3_000


def weights(value: float) -> dict[str, Any]:
    return {"model": {"w": torch.full((LENGTH,), value)}, "classes": ["female", "male"]}


def state(step: int) -> dict[str, Any]:
    return {"step": step, "optimizer": {"state": {0: {"momentum_buffer": torch.full((LENGTH,), -1.0 * step)}}}}


def good(content: Mapping[str, Any], step: int) -> bool:
    momentum = content["optimizer"]["state"][0]["momentum_buffer"]
    return content["step"] == step and bool((momentum == -step).all() and (content["model"]["w"] == step).all())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Checkpoints of steps 10, 20 and 30."""
    with Saver(tmp_path / "checkpoints") as saver:
        for step in (10, 20, 30):
            saver.save(step, weights(step), state(step), best=step == 20)
    return tmp_path / "checkpoints"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_last_and_the_best_are_kept(directory: Path) -> None:
    with Saver(directory, keep=2) as saver:
        for step in (40, 50):
            saver.save(step, weights(step), state(step))
    assert names(directory) == ["best.pt", "last.pt", "step-00000040.pt", "step-00000050.pt"]
    best = read_checkpoint(directory / "best.pt")
    assert best.keys() == {"format", "model", "classes"}
    assert best["model"]["w"][0] == 20
    assert good(read_checkpoint(directory / "last.pt"), 50)
    newest = latest(directory)
    assert newest
    assert newest[0] == directory / "step-00000050.pt"
    assert good(newest[1], 50)


def test_what_changes_after_save_is_written_as_it_was(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 256, 7), torch.nn.BatchNorm2d(256))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    expected = []
    with Saver(tmp_path) as saver:
        for step in (1, 2, 3):
            model(torch.randn(2, 3, 16, 16)).square().sum().backward()
            optimizer.step()
            saver.save(step, {"model": model.state_dict()}, {"optimizer": optimizer.state_dict()})
            expected.append({key: value.clone() for key, value in model.state_dict().items()})
            for tensor in (*model.state_dict().values(), *(s["momentum_buffer"] for s in optimizer.state.values())):
                tensor.zero_()
            optimizer.param_groups[0]["lr"] = 7.0
    for step, values in zip((1, 2, 3), expected, strict=True):
        content = read_checkpoint(tmp_path / f"step-{step:08d}.pt")
        assert all(torch.equal(content["model"][key], value) for key, value in values.items())
        assert content["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
        assert all(s["momentum_buffer"].any() for s in content["optimizer"]["state"].values())
        assert content["optimizer"]["param_groups"][0]["lr"] == (0.1 if step == 1 else 7.0)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with Saver(tmp_path) as saver, pytest.raises(TypeError, match=r"cannot hold PosixPath at state\.config\.runs"):
        saver.save(1, {}, {"config": {"runs": Path("runs")}})
    assert names(tmp_path) == []


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_one_is_skipped(directory: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(seed)
    last = directory / "step-00000030.pt"
    whole = last.read_bytes()
    if seed % 2:
        os.truncate(last, generator.randrange(len(whole)))
        why = "is cut short, or not a checkpoint of hpcgender"
    else:
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole) - 100)] ^= 1 << generator.randrange(8)
        last.write_bytes(damaged)
        why = "is damaged: its bytes do not match their checksum"
    newest = latest(directory)
    assert newest
    assert good(newest[1], 20)
    assert capfd.readouterr().err == f"hpcgender: {last} {why}: using step-00000020.pt instead\n"

    # The run resumes from there, and its next checkpoint is the newest one, even if it is of an earlier step.
    with Saver(directory, keep=2) as saver:
        saver.save(25, weights(25), state(25))
    assert names(directory) == ["best.pt", "last.pt", "step-00000020.pt", "step-00000025.pt"]
    newest = latest(directory)
    assert newest
    assert good(newest[1], 25)
    assert capfd.readouterr().err == ""


def test_one_with_a_bad_pickle_and_the_right_checksum_is_skipped(directory: Path) -> None:
    (directory / "step-00000030.pt").write_bytes(sealed(rewritten(saved({}), BAD_STREAMS[0])))
    newest = latest(directory)
    assert newest
    assert good(newest[1], 20)


def test_without_an_intact_one_nothing_is_overwritten(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in directory.glob("step-*"):
        os.truncate(path, 100)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: restore one, or start a new run"):
        latest(directory)
    assert capfd.readouterr().err.count("\n") == 3


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert latest(tmp_path / "checkpoints") is None
    Saver(tmp_path / "checkpoints").close()
    assert latest(tmp_path / "checkpoints") is None


def test_a_full_disk_ends_the_next_save_and_leaves_the_last_intact_one(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.iterdir()}
    saver = Saver(directory)
    with files_no_longer_than(10_000):
        saver.save(40, weights(40), state(40), best=True)
        with pytest.raises(
            UserError, match=r"cannot write .*/best\.pt: File too large; free space .* --name \S+ --resume$"
        ):
            saver.save(50, weights(50), state(50))
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    saver.save(50, weights(50), state(50))  # space was freed
    saver.close()
    assert good(read_checkpoint(directory / "last.pt"), 50)


def test_a_failed_last_write_is_raised(directory: Path) -> None:
    saver = Saver(directory)
    shutil.rmtree(directory)
    saver.save(50, weights(50), state(50))
    with pytest.raises(UserError, match=r"cannot write .*/step-00000050\.pt: .*No such file"):
        saver.close()


def test_a_failed_last_write_does_not_hide_the_first_error(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        with Saver(directory) as saver:
            shutil.rmtree(directory)
            saver.save(60, weights(60), state(60))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert capfd.readouterr().err.startswith(f"hpcgender: cannot write {directory}/step-00000060.pt: ")


def test_no_permission_is_one_line(directory: Path) -> None:
    directory.chmod(0o555)
    program = [sys.executable, "-m", "tests.hpcgender.saving", str(directory)]
    if os.geteuid() == 0:  # who may write everywhere, but for this
        program = ["setpriv", "--bounding-set=-dac_override", *program]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    directory.chmod(0o755)
    assert "shard_tools.base.errors.UserError: cannot write" in ended.stderr
    assert "Permission denied" in ended.stderr
    assert good(read_checkpoint(directory / "last.pt"), 30)


def test_a_killed_process_leaves_intact_checkpoints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directories = [tmp_path / str(number) for number in range(4)]
    generator = random.Random(0)
    with ExitStack() as started:
        processes = []
        for directory in directories:
            processes.append(subprocess.Popen([sys.executable, "-m", "tests.hpcgender.saving", str(directory)]))
            started.callback(processes[-1].wait)
            started.callback(processes[-1].kill)
        for directory, process in zip(directories, processes, strict=True):
            while not (directory / "last.pt").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(generator.random() / 10)
            process.kill()
    for directory in directories:
        for path in (*directory.glob("step-*.pt"), directory / "best.pt"):
            content = read_checkpoint(path)
            assert (content["model"]["w"] == content.get("step", content["model"]["w"][0, 0])).all()
        newest = latest(directory)
        assert newest
        assert int(read_checkpoint(directory / "best.pt")["model"]["w"][0, 0]) - newest[1]["step"] in (0, 1)
        Saver(directory).close()
        assert not list(directory.glob(".*"))  # what it was writing is cleared away
    assert capfd.readouterr().err == ""
