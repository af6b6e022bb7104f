"""What others on a cluster may read: no secrets of the environment, files by the umask, and pages that run nothing."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgender.checkpoint import save_checkpoint
from hpcgender.commands import HPCGENDER
from jobs.scheduler import LIVE
from shard_tools.base.files import new_directory, whole_text, write_whole
from shard_tools.commands import SHARD_TOOLS
from tests.conftest import Run
from tests.hpcgender.evaluate.examples import save_model

CANARY = "canary-4f1d"
SCRIPT = "<script>alert(1)</script>"


def test_no_secret_of_the_environment_is_recorded(hpcgender: Run, queue: Path, tmp_path: Path) -> None:
    secrets = {name: f"{CANARY}-{name}" for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PASSWORD")}
    drawn = ("synthetic", "--out", "faces", "--count", "2", "--size", "32")
    done = hpcgender("launch", "--", *drawn, **secrets)
    assert done.returncode == 0, done.stderr
    job, end = queue / "1" / "job.json", time.monotonic() + 120
    while json.loads(job.read_text())["state"] in LIVE and time.monotonic() < end:
        time.sleep(0.1)
    (attempts,) = tmp_path.rglob("submissions/*/attempts.jsonl")
    ended = [event for event in map(json.loads, attempts.read_text().splitlines()) if event["event"] == "end"]
    assert [event["code"] for event in ended] == [0], next((tmp_path / "logs").iterdir()).read_text()
    assert len(list((tmp_path / "faces").glob("*.JPG"))) == 2
    told = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "submission.json" for path in told)
    assert [path for path in told if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in done.stdout + done.stderr


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"x")
        with whole_text(tmp_path / "b") as file:
            file.write("x")
        with new_directory(tmp_path / "c") as partial:
            (partial / "d").write_text("x")
        save_checkpoint(tmp_path / "e", {})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o640, "b": 0o640, "c": 0o750, "d": 0o640, "e": 0o640}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose groups and subjects are scripts, and a run with an evaluation of it."""
    root = tmp_path_factory.mktemp("labelled")
    (root / "images").mkdir()
    lines = ["image,gender,age,race,person"]
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC)
        picture.save(root / "images" / f"{number}.png")
        lines.append(f"{number}.png,{'fm'[number % 2]},{20 + number},{SCRIPT}{number % 2},{SCRIPT}{number}")
    (root / "labels.csv").write_text("\n".join(lines))
    pack = ("pack", "table", "--table", root / "labels.csv", "--images", root / "images", "--out", root / "data")
    columns = (
        "--gender",
        "gender",
        "--age",
        "age",
        "--group",
        "race",
        "--subject",
        "person",
        "--val",
        0,
        "--test",
        0.5,
    )
    assert SHARD_TOOLS.run([*map(str, (*pack, *columns, "--workers", 1))]) == 0
    best = save_model(root / "runs" / "r" / "checkpoints" / "best.pt", model="compact")
    words = ("evaluate", "--checkpoint", best, "--data", root / "data", "--backend", "torchvision")
    assert HPCGENDER.run([*map(str, words)]) == 0
    return root


def test_labels_with_scripts_are_text_on_every_page(labelled: Path, tmp_path: Path) -> None:
    evaluation = labelled / "runs" / "r" / "evaluations" / "data-test"
    pages = {
        "inspect": SHARD_TOOLS.run(["inspect", str(labelled / "data"), "--html", str(tmp_path / "inspect.html")]),
        "report": HPCGENDER.run(["report", str(evaluation), "--out", str(tmp_path / "report.html")]),
        "matrix": HPCGENDER.run(["matrix", str(evaluation), "--html", str(tmp_path / "matrix.html")]),
        "title": HPCGENDER.run(["report", str(evaluation), "--title", SCRIPT, "--out", str(tmp_path / "title.html")]),
    }
    assert pages == dict.fromkeys(pages, 0)
    texts = {name: (tmp_path / f"{name}.html").read_text() for name in pages}
    assert [name for name, text in texts.items() if re.search(r"<script[^>]*>\s*alert", text)] == []
    assert all("&lt;script&gt;alert(1)" in texts[name] for name in ("inspect", "report", "title"))
