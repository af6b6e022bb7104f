"""`hpcgender plan`: the arithmetic on fixed numbers, and what a person sees."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpcgender.commands import HPCGENDER
from hpcgender.doctor import report
from hpcgender.doctor.finding import Finding, green
from hpcgender.doctor.report import Examination
from hpcgender.plan.estimate import Rates, Work, estimate, spread

WORK = Work(
    train_images=102_400,
    val_images=12_000,
    image_bytes=3000.0,
    epochs=50,
    batch_size=1024,
    nodes=2,
    processes_per_node=4,
    on_gpu=True,
    limit_s=3600.0,
    weight_bytes=100_000_000,
    activation_bytes=10e6,
    memory_bytes=80e9,
)
RATES = Rates(
    step_images_per_s=1000.0,
    loaded_images_per_s=2000.0,
    decoded_per_core=500.0,
    all_reduce_bytes_per_s=10e9,
    low=0.8,
    high=1.25,
    source="measured",
)


def test_a_plan_adds_up() -> None:
    """8 GPUs at 1,000 images/s: 100 steps of 128 ms, and 1,500 validation images each at 2,000/s, which load bounds."""
    found = estimate(WORK, RATES)
    expected = {
        "epoch_s": 12.8 + 0.75,
        "validation_s": 0.75,
        "total_s": 677.5,
        "low": 0.8,
        "high": 1.25,
        "images_per_s": 8000.0,
        "limited_by": "steps",
        "device_hours": 677.5 * 8 / 3600,
        "storage_bytes_per_s": 24e6,
        "cores_per_process": 2.0,
        "memory_bytes": 3e8 + 1.5e9 + 1.28e9,
        "gpu_memory_bytes": 80e9,
        "fits": True,
        "largest_batch": 8 * 7020,  # (72e9 - 1.8e9) / 10e6
        "checkpoint_bytes": 9e8,
        "requeues": 0,
        "source": "measured",
    }
    assert asdict(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rates", "limited_by", "step_s"),
    [
        (replace(RATES, loaded_images_per_s=500.0), "images", 0.256),
        (replace(RATES, all_reduce_bytes_per_s=0.5e9), "all-reduce", 0.128 + 0.2 - 0.128 * 2 / 3),
        (replace(RATES, all_reduce_bytes_per_s=2e9), "steps", 0.128),  # 50 ms hide behind the backward pass
        (replace(RATES, all_reduce_bytes_per_s=None, loaded_images_per_s=None), "steps", 0.128),
    ],
)
def test_the_slowest_part_bounds_a_gpus_steps(rates: Rates, limited_by: str, step_s: float) -> None:
    found = estimate(WORK, rates)
    assert found.limited_by == limited_by
    assert 1024 / found.images_per_s == pytest.approx(step_s)


def test_on_a_cpu_all_parts_take_turns() -> None:
    work = replace(WORK, on_gpu=False, memory_bytes=None)
    found = estimate(work, RATES)
    assert 1024 / found.images_per_s == pytest.approx(0.128 + 0.064 + 0.01)
    assert found.validation_s == pytest.approx(1500 * (1 / 3000 + 1 / 2000))
    assert found.largest_batch is None


@pytest.mark.parametrize(("epochs", "requeues"), [(250, 0), (251, 1), (1001, 4)])
def test_a_run_longer_than_its_jobs_is_requeued(epochs: int, requeues: int) -> None:
    """An hour is 3,360 s of steps: 180 s to save in, 60 s to start."""
    assert estimate(replace(WORK, epochs=epochs, val_images=0, train_images=107_520), RATES).requeues == requeues


def test_a_batch_may_not_fit_at_all() -> None:
    found = estimate(replace(WORK, memory_bytes=1e9), RATES)
    assert (found.largest_batch, found.fits) == (0, False)


@pytest.mark.parametrize(("peak", "memory", "fits"), [(None, 3.08e9, True), (2e9, 3.5e9, True), (3e9, 4.5e9, False)])
def test_memory_that_was_measured_goes_before_what_is_counted(peak: float | None, memory: float, fits: bool) -> None:
    found = estimate(replace(WORK, memory_bytes=4e9, peak_bytes=peak), RATES)
    assert found.memory_bytes == pytest.approx(memory)
    assert found.fits == fits


def test_the_range_widens_with_what_a_model_does_otherwise() -> None:
    """EfficientNet-B0 has a tenth of a ResNet-50's operations on as large maps, and takes nearly as long."""
    assert spread(2.0, 2.0, 2.0, alike=True) == pytest.approx((0.871, 1.149), abs=1e-3)
    assert spread(0.1, 0.1, 0.8, alike=False) == pytest.approx((0.421, 19.02), abs=1e-2)
    assert spread(4.0, 4.0, 0.8, alike=False) == pytest.approx((0.101, 1.979), abs=1e-3)


def examined(model: str, **changes: object) -> Examination:
    """An examination of a CPU that computes 80 images/s of a model at 64 pixels."""
    findings: tuple[Finding, ...] = (
        green("step", "", images_per_s=80.0),
        green("loader", "", images_per_s=800.0),
        green("decode", "", images_per_s=900.0),
    )
    whole = Examination(
        time=0.0,
        hosts=("node1",),
        processes=1,
        device="cpu",
        precision="fp32",
        cores_per_process=2.0,
        model=model,
        image_size=64,
        batch_size=16,
        findings=findings,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shards").symlink_to(shards)
    return tmp_path


OPTIONS = ("plan", "--model", "resnet18", "--image-size", "64", "--batch-size", "16")


def test_a_plan_follows_what_was_examined(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write(examined("resnet18"))
    assert HPCGENDER.run([*OPTIONS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images_per_s"] == pytest.approx(1 / (1 / 80 + 1 / 800))
    assert found["source"] == "measured by hpcgender doctor on node1 (cpu)"
    assert (found["low"], found["high"]) == (0.8, 1.25)

    report.write(examined("resnet34"), place / "elsewhere")
    assert HPCGENDER.run([*OPTIONS, "--json", "--from", "elsewhere/examination.json"]) == 0
    scaled = json.loads(capsys.readouterr().out)
    assert scaled["images_per_s"] == pytest.approx(1 / (1 / (80 * 2.03) + 1 / 800), rel=0.02)  # of half the operations
    assert scaled["source"].endswith("scaled by operations from resnet34 at 64 px")
    assert (scaled["low"], scaled["high"]) == pytest.approx((0.521, 2.716), rel=0.01)  # of more activations, too
    assert HPCGENDER.run([*OPTIONS, "--from", "elsewhere/examination.json"]) == 0
    said = capsys.readouterr().out
    assert "the range is wide: examine with hpcgender doctor --model resnet18 --image-size 64" in " ".join(said.split())


def test_a_plan_is_of_the_sample_and_the_validation_that_are_asked_for(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.write(examined("resnet18"))

    def planned(*words: str) -> dict[str, float]:
        assert HPCGENDER.run([*OPTIONS, "--json", *words]) == 0
        found: dict[str, float] = json.loads(capsys.readouterr().out)
        return found

    whole, half, blind = planned(), planned("--limit", "128"), planned("--val-split", "none")
    assert blind["validation_s"] == 0 < whole["validation_s"] == half["validation_s"]
    training = whole["epoch_s"] - whole["validation_s"]
    assert half["epoch_s"] - half["validation_s"] == pytest.approx(training / 2, rel=0.05)  # of 256 images


def test_the_network_between_nodes_is_not_that_within_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two nodes planned from one with two processes: unknown, rather than the memory of one machine."""
    seen = examined("resnet18", processes=2, device="NVIDIA H100 80GB HBM3", precision="bf16")
    within = green("all-reduce within a node", "", bytes_per_s=1e6)
    report.write(replace(seen, findings=(*seen.findings, within)))
    for nodes, limited_by in (("1", "all-reduce"), ("2", "steps")):
        assert HPCGENDER.run([*OPTIONS, "--json", "--nodes", nodes]) == 0
        assert json.loads(capsys.readouterr().out)["limited_by"] == limited_by
    assert HPCGENDER.run([*OPTIONS, "--nodes", "2"]) == 0
    assert "network" in capsys.readouterr().out


def test_an_examination_of_another_device_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write(examined("resnet18"), place / "cpu")
    assert HPCGENDER.run([*OPTIONS, "--from", "cpu/examination.json", "--gpu", "h100"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--gpu h100: cpu/examination.json is of cpu: give one of the two" in error


def test_a_plan_for_a_gpu_that_was_not_examined_names_its_source(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.write(examined("resnet18"))
    words = ("plan", "--model", "se_resnet152", "--nodes", "2", "--gpu", "H100", "--gpus-per-node", "4")
    assert HPCGENDER.run([*words, "--epochs", "50", "--time", "24h"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("se_resnet152 at 112 px, ")
    for words_of in ("8 GPUs", "MLPerf Training v3.0", "largest batch", "requeues", "uncertain", "to decode"):
        assert words_of in said, said


def test_a_batch_that_does_not_fit_is_told_and_which_memory_was_assumed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("plan", "--model", "vgg16", "--image-size", "2048", "--batch-size", "128", "--gpu", "a100")
    assert HPCGENDER.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is False
    assert HPCGENDER.run(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "MORE than fits into its 80.0 GB: give a smaller --batch-size" in said
    assert "for each GPU; on one of 40.0 GB" in said

    seen = examined("resnet18", device="NVIDIA A100-SXM4-40GB", precision="bf16")
    peak = green("step", "", images_per_s=80.0, peak_memory_bytes=39e9)
    total = green("memory of cuda:0", "", total_bytes=40e9)
    report.write(replace(seen, findings=(peak, *seen.findings[1:], total)))
    for batch, memory, fits in (("16", 40.5e9, False), ("32", 1.7e9, True)):  # another was not measured
        assert HPCGENDER.run([*OPTIONS[:-1], batch, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["memory_bytes"] == pytest.approx(memory, rel=0.1)
        assert (found["fits"], found["gpu_memory_bytes"]) == (fits, 40e9)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "run hpcgender doctor on such a node, or give --gpu"),
        (("--gpu", "h1000"), "unknown GPU 'h1000': did you mean h100?"),
        (("--gpu", "a100", "--time", "5m"), "at least 10 minutes"),
        (("--gpu", "a100", "--nodes", "0"), "--nodes 0: at least 1 is needed"),
        (("--gpu", "a100", "--limit", "-1"), "--limit -1: give a number of images, or 0 for all"),
        (("--gpu", "a100", "--limit", "10"), "has 10 images, fewer than --batch-size 16"),
        (("--gpu", "a100", "--val-data", "nowhere"), "no manifest.json in nowhere"),
        (("--gpu", "a100", "--val-split", "hard"), "hard"),
        (("--gpu", "a100", "--data", "nowhere"), "no manifest.json in nowhere"),
        (("--from", "nowhere.json"), "no nowhere.json in ."),
        (("--gpu", "a100", "--batch-size", "100000"), "fewer than --batch-size 100000"),
        (("--gpu", "a100", "--gpus-per-node", "3"), "does not divide by 3 ranks: change --batch-size"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_line(
    words: tuple[str, ...], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert HPCGENDER.run([*OPTIONS, *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
