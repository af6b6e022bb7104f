from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hpcgender.checkpoint import save_checkpoint
from hpcgender.commands import PROGRAMS
from hpcgender.commands.train import TrainConfig
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from tests.conftest import Run

HELP = [
    (program.module, *words)
    for program in PROGRAMS
    for words in [(), *(command.name.split() for command in program.commands())]
]
HEAVY = ("torch", "nvidia.dali", "matplotlib", "tensorboard")
WATCH = """
import atexit, runpy, sys
atexit.register(lambda: print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr, end=""))
sys.argv = {argv!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_answers_without_what_takes_long_to_import(command: tuple[str, ...]) -> None:
    code = WATCH.format(heavy=HEAVY, argv=[*command, "--help"], module=command[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "usage: " in done.stdout
    assert done.stderr == ""


def test_launch_is_a_module_too(run: Run) -> None:
    done = run("hpcgender.launch", "--help")
    assert done.returncode == 0
    assert "usage: hpcgender launch" in done.stdout


def test_the_console_scripts() -> None:
    for script in ("hpcgender", "shard-tools"):
        path = Path(sys.executable).with_name(script)
        done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=60, check=True)
        assert f"usage: {script} COMMAND" in done.stdout
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == f"{script} {version('hpcgender')}\n"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A directory with a packed data set, checkpoints good and bad, and images good and bad."""
    root = tmp_path_factory.mktemp("workplace")
    (root / "data").symlink_to(shards)
    content: dict[str, Any] = {
        "model": create(ModelConfig(model="resnet18"), 2).state_dict(),
        "classes": ["female", "male"],
        "epoch": 1,
        "step": 10,
        "config": TrainConfig(model="resnet18", image_size=32).plain(),
        **{"revision": "", "manifest": "", "val_manifest": "", "leaks": [], "crop": None},
    }
    save_checkpoint(root / "good.pt", content)
    save_checkpoint(root / "swapped.pt", {**content, "classes": ["male", "female"]})
    torch.save({"weights": 1}, root / "foreign.pt")
    (root / "cut.pt").write_bytes((root / "good.pt").read_bytes()[:1000])
    (root / "no.jpg").write_text("not an image")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("trian", "unknown command 'trian': did you mean train?"),
        ("show_batch --run x", "unknown command 'show_batch': did you mean show-batch?"),
        ("train --data nowhere", "no manifest.json in nowhere"),
        ("train --data empty", "no manifest.json in empty"),
        ("train --data data --model se_resnet51", "unknown model 'se_resnet51': did you mean se_resnet50?"),
        ("train --data data --augment lite", "unknown augmentation 'lite': did you mean light?"),
        ("train --data data --batch-size 100000", "fewer than --batch-size 100000"),
        ("train --data data --epochs 0", "--epochs 0 must be positive"),
        ("evaluate --checkpoint nothing.pt --data data", "no checkpoint nothing.pt"),
        ("evaluate --checkpoint good.pt --data nowhere", "no manifest.json in nowhere"),
        ("evaluate --checkpoint good.pt --data data --split tset", "no split 'tset' in data: did you mean test?"),
        ("evaluate --checkpoint swapped.pt --data data", "trained for classes male, female, not female, male"),
        ("evaluate --checkpoint foreign.pt --data data", "foreign.pt is cut short, or not a checkpoint of hpcgender"),
        ("cam --checkpoint cut.pt --data data", "cut.pt is cut short, or not a checkpoint of hpcgender"),
        ("cam --checkpoint good.pt --data data --examples 0", "must be positive"),
        ("predict --checkpoint good.pt nobody.jpg", "cannot use nobody.jpg: it cannot be read: No such file"),
        ("predict --checkpoint good.pt no.jpg", "cannot use no.jpg: it is not an image"),
        ("predict --checkpoint nothing.pt data/manifest.json", "no checkpoint nothing.pt"),
        ("launch -- trian", "unknown command 'trian': did you mean train?"),
        ("launch --nodes 2 -- train --data nowhere", "no manifest.json in nowhere"),
        ("launch --nodes 2 -- evaluate --checkpoint swapped.pt --data data", "trained for classes male, female"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(run: Run, workplace: Path, command: str, says: str) -> None:
    before = sorted(workplace.rglob("*"))
    done = run("hpcgender", *command.split(), cwd=workplace)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("launch: ")]
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
    assert lines[0].startswith("hpcgender: ")
    kept = {"logs", "submissions"}  # what a launch that fails later leaves
    new = [path for path in sorted(workplace.rglob("*")) if path not in before and not kept & set(path.parts)]
    assert [path for path in new if path.is_file()] == []


def test_a_half_set_torchrun_environment_is_refused(run: Run, workplace: Path) -> None:
    done = run("hpcgender", *["evaluate", "--checkpoint", "good.pt", "--data", "data"], cwd=workplace, RANK="0")
    assert done.returncode == 2
    assert "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE not set" in done.stderr


@pytest.mark.parametrize("dali", [True, False], ids=["with DALI", "without DALI"])
def test_predict_goes_on_past_images_that_cannot_be_used(
    run: Run, workplace: Path, faces: Path, tmp_path: Path, dali: bool
) -> None:
    """Also where a scheduler or a shell has left RANK behind: predict is one process."""
    if not dali:
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['nvidia.dali'] = None\n")
    environ = {"RANK": "3", "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    first, second = sorted(faces.iterdir())[:2]
    (tmp_path / "half.jpg").write_bytes(first.read_bytes()[:500])
    Image.open(first).save(tmp_path / "whole.png")
    (tmp_path / "no-end.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-12])
    Image.open(first).save(tmp_path / "exif.jpg", exif=b"Exif\0\0" + bytes(range(60, 200)))
    names = ("half.jpg", "whole.png", "no-end.png", "gone.jpg", "exif.jpg")
    command = ("hpcgender", "predict", "--checkpoint", workplace / "good.pt")
    images = [first, *(tmp_path / name for name in names), second]
    done = run(*command, "--json", *images, **environ)
    assert done.returncode == 1, done.stderr
    missing = "NVIDIA DALI is not installed: Pillow decodes the images (--backend torchvision)"
    assert done.stderr.splitlines().count(missing) == (0 if dali else 1)
    rows = {Path(row["image"]).name: row for row in json.loads(done.stdout)}
    assert list(rows) == [path.name for path in images]
    assert {name for name, row in rows.items() if "error" in row} == {"half.jpg", "gone.jpg"}
    assert rows["no-end.png"]["logit"] == pytest.approx(rows["whole.png"]["logit"], rel=1e-3)
    assert all(("label" in row) != ("error" in row) for row in rows.values())
    lines = [line for line in done.stderr.splitlines() if line.startswith("hpcgender: ")]
    assert lines[-1] == "hpcgender: 2 of 7 images cannot be used"
    assert f"{tmp_path / 'no-end.png'}: encoded anew: it is a PNG without its end" in lines[1]

    done = run(*command, tmp_path / "half.jpg", tmp_path / "gone.jpg", **environ)
    assert done.returncode == 2
    assert "2 of 2 images cannot be used" in done.stderr
