"""What ends `hpcgender app` before it begins, and what Streamlit is told."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from hpcgender.app.command import LOOPBACK, app, options, words
from hpcgender.commands.app import AppConfig
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from tests.conftest import Run


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "no run in runs has a checkpoint: give one as --checkpoint"),
        (("--checkpoint", "gone.pt"), "no checkpoint gone.pt: give one"),
        (("--checkpoint", "gone.onnx"), "no file gone.onnx: give one of hpcgender export --format onnx"),
        (("--evaluation", "gone"), "name an evaluation such as runs/<name>/evaluations/<data>-test, or make one"),
        (("--checkpoint", "{crops}", "--cam", "gone"), "name heat maps such as runs/<name>/cams/<data>-test"),
        (("--checkpoint", "{crops}", "--port", "80"), "--port 80 is not from 1024 to 65535"),
        (("--checkpoint", "{crops}", "--address", "0.0.0.0"), "--address"),
    ],
)
def test_what_cannot_work_is_one_line(
    run: Run, shown: Path, tmp_path: Path, given: tuple[str, ...], message: str
) -> None:
    named = [word.format(crops=shown / "runs" / "crops") for word in given]
    done = run("hpcgender", "app", *named, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_without_streamlit_the_extra_is_named(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcgender.commands.app.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package streamlit: install the extra app: .*'\.\[app\]'"):
        AppConfig(checkpoint=(shown / "runs" / "crops",)).check()


def test_a_port_that_another_program_has_is_named(shown: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} of 127.0.0.1: Address already in use; give another one"):
            app(AppConfig(checkpoint=(shown / "runs" / "crops",), port=port))


def test_the_newest_best_checkpoint_is_shown_if_none_is_named(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shown / "runs", tmp_path / "runs")
    for name, time in (("crops", 5), ("whole", 3)):
        os.utime(tmp_path / "runs" / name / "checkpoints" / "best.pt", (time, time))
    monkeypatch.chdir(tmp_path)
    config = AppConfig()
    assert config.checkpoints == (Path("runs/crops/checkpoints/best.pt"),)
    again = parse_options(AppConfig, "hpcgender app", words(config))
    assert again.checkpoints == config.checkpoints  # the script shows what the command printed
    assert parse_options(AppConfig, "hpcgender app", words(again)) == again  # and does not load the models once more


def test_streamlit_serves_this_machine_alone_and_sends_nothing() -> None:
    told = options(8501, "secret")
    assert told["server.address"] == told["browser.serverAddress"] == "127.0.0.1"
    assert told["browser.gatherUsageStats"] is False
    assert told["server.allowedHosts"] == ["127.0.0.1", "localhost"]
    assert told["client.toolbarMode"] == "minimal"
