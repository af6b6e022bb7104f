"""The commands on the pages that no test of the pages runs, why, and what tests them instead."""

from __future__ import annotations

from collections.abc import Sequence

_SUITE = "the tests themselves"
_BENCHMARK = "measures for minutes, and asserts nothing"
_INSTALLS = "installs packages from a network: tests/jobs/test_install.py runs the installer on an index of its own"
_DEMO = "goes from raw images to heat maps in minutes: tests/jobs/test_demo.py"
_DOCTOR = "measures this machine for half a minute: tests/hpcgender/doctor/test_examination.py"
_PLAN = "needs what doctor measured: tests/hpcgender/test_plan.py"
_PRESETS = "trains a network of full size: tests/hpcgender/test_presets.py trains with each preset"
_SCRIPT = "needs a scheduler: tests/cluster/test_training.py, and tests/jobs/test_scripts.py as a program of bash"
_STUDY = "needs a study that has ended: tests/hpcgender/study/test_local.py carries one out, {} shows several seeds"
_SITE = "needs that scheduler: tests/cluster/test_submission.py"
_WEIGHTS = "downloads weights: tests/hpcgender/test_pretrained.py has a server of its own"

NOT_RUN = {
    "bash tests/run.sh ...": _SUITE,
    "bash .ci/run": _SUITE,
    "python -m tests.benchmarks. ...": _BENCHMARK,
    "python -m tests.faults ...": "kills commands at random for minutes: tests/faults/test_faults.py",
    "bash jobs/install.sh ...": _INSTALLS,
    "bash jobs/demo.sh ...": _DEMO,
    "qsub ...": _SCRIPT,
    "sbatch ...": _SCRIPT,
    "python -m hpcgender train": "is what an agent starts: tests/jobs/test_agent.py",
    "python -m hpcgender.launch --nodes 2 -- train --data data/faces --name mine": (
        "starts processes as on two nodes: tests/hpcgender/test_end_to_end.py"
    ),
    "hpcgender doctor ...": _DOCTOR,
    "hpcgender report table": _STUDY.format("tests/hpcgender/report/test_report.py"),
    "hpcgender matrix runs/accuracy": _STUDY.format("tests/hpcgender/compare/test_matrix.py"),
    "hpcgender plan --data data/faces --model se_resnet50": _PLAN,
    "hpcgender plan --width 0.5": _PLAN,
    "hpcgender app ...": "serves a page until it is ended: tests/hpcgender/app/test_browser.py",
    "hpcgender sites check --site sge --nodes 2": _SITE,
    "hpcgender sites check --site slurm --nodes 2": _SITE,
    "hpcgender jobs logs mine -f": "follows a job that writes: tests/hpcgender/status/test_logs.py",
    "hpcgender jobs logs mine --rank 3": "needs a job of four processes: tests/hpcgender/status/test_logs.py",
    "hpcgender train --preset resnet50": _PRESETS,
    "hpcgender train --preset vgg16": _PRESETS,
    "hpcgender train --preset multibranch": _PRESETS,
    "hpcgender train --preset multitask_resnet18": _PRESETS,
    "hpcgender train --preset transfer_resnet18": _PRESETS,
    "hpcgender train --backend dali-mixed": "needs a GPU: tests/gpu/test_pixels.py",
    "hpcgender train --model resnet50 --pretrained torchvision:IMAGENET1K_V2 ...": _WEIGHTS,
    "hpcgender train --model timm:vit_tiny_patch16_224 ...": "downloads weights: tests/hpcgender/test_timm_weights.py",
}
"""What ends with `...` stands for all that begin so. Each stands on some page."""


def excused(words: Sequence[str]) -> str:
    """The entry of a command; empty if it is to be run."""
    line = " ".join(words)
    return next((entry for entry in NOT_RUN if fits(line, entry)), "")


def fits(line: str, entry: str) -> bool:
    begin, dots, _ = entry.partition("...")
    return line.startswith(begin.rstrip()) if dots else line == entry
