"""What is known before a training begins is refused before it begins, in one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgender.commands.train import COMMANDS, TrainConfig
from hpcgender.memory import enough_memory
from hpcgender.models.config import ModelConfig
from hpcgender.run_directory import resume_command
from hpcgender.train import learner, loop
from hpcgender.trainable import check_trainable
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.base.lock import locked
from shard_tools.index import index_dtype
from shard_tools.manifest import Manifest, Split, read_manifest

SMALL: dict[str, Any] = {
    "model": "compact",
    "image_size": 32,
    "batch_size": 32,
    "lr": 0.01,
    "epochs": 1,
    "backend": "torchvision",
}


def options(shards: Path, tmp_path: Path, **others: Any) -> TrainConfig:
    return TrainConfig(**{"data": shards, "runs": tmp_path / "runs", "name": "a", **SMALL, **others})


def refused(config: TrainConfig) -> str:
    """The line with which the options are refused."""
    with pytest.raises(UserError) as error:
        config.check()
    assert "\n" not in str(error.value)
    return str(error.value)


def leave_checkpoint(config: TrainConfig, name: str = "step-00000008.pt") -> Path:
    """A file where checkpoints are."""
    path = config.run_dir / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def with_counts(manifest: Manifest, split: str, **counts: int) -> Manifest:
    changed = replace(manifest.splits[split], counts=counts)
    return replace(manifest, splits={**manifest.splits, split: changed})


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_class_alone_is_not_trained(shards: Path, split: str) -> None:
    manifest = with_counts(read_manifest(shards), split, female=40, male=0)
    with pytest.raises(UserError, match=rf"^{split} in \S+ has no male images, but 40 female: gender needs both"):
        check_trainable([manifest], ["gender", "age"], [manifest], "val")
    check_trainable([manifest], ["age"], [manifest], "val")
    with pytest.raises(UserError, match=rf"^{split} in \S+ has no female and no male images: "):
        check_trainable(
            [with_counts(manifest, split, female=0, male=0)],
            ["gender"],
            [with_counts(manifest, split, female=0, male=0)],
            "val",
        )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_task_without_labels_is_refused(shards: Path, tmp_path: Path, split: str) -> None:
    manifest = read_manifest(shards)
    for name, part in manifest.splits.items():
        rows = np.zeros(part.samples, index_dtype(1, 1, 1))
        rows["age"] = -1 if name == split else np.where(np.arange(len(rows)) == len(rows) - 1, 0, -1)
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "index.npy", rows)
    without = replace(manifest, root=tmp_path)
    for tasks in (["age"], ["gender", "age"]):
        with pytest.raises(UserError, match=rf"^{split} in \S+ has no image of known age: leave age out of --tasks"):
            check_trainable([without], tasks, [without], "val")
    check_trainable([without], ["gender"], [without], "val")


def test_without_validation_images_it_says_what_there_is(shards: Path) -> None:
    manifest = read_manifest(shards)
    train = replace(manifest, splits={"train": Split(**{**vars(manifest.splits["train"]), "samples": 7})})
    with pytest.raises(UserError, match=r"has no validation images \(it has train 7\): pack it again with --val 0\.1"):
        check_trainable([train], ["gender"], [train], "val")


@pytest.mark.parametrize(
    ("model", "size", "least"),
    [
        ({"model": "resnet18"}, 31, 32),
        ({"model": "resnet18", "stem": "small"}, 15, 16),
        ({"model": "vgg11_bn"}, 31, 32),
        ({"model": "compact"}, 1, 16),
    ],
)
def test_images_too_small_for_the_network(
    shards: Path, tmp_path: Path, model: dict[str, Any], size: int, least: int
) -> None:
    says = refused(options(shards, tmp_path, image_size=size, **model))
    assert says == f"--image-size {size}: {model['model']} takes images of {least} pixels or more"
    options(shards, tmp_path, image_size=least, **model).check()


def test_the_side_of_a_map() -> None:
    sides = [
        ModelConfig(model="resnet18").map_side(32),
        ModelConfig(model="resnet18").map_side(33),
        ModelConfig(model="resnet18", output_stride=8).map_side(32),
        ModelConfig(model="resnet18", stem="small").map_side(32),
        ModelConfig(model="vgg11").map_side(112),
        ModelConfig(model="compact").map_side(32),
    ]
    assert sides == [1, 2, 4, 4, 7, 2]


def test_an_attempt_that_left_no_checkpoint_does_not_hold_the_name(shards: Path, tmp_path: Path) -> None:
    config = options(shards, tmp_path)
    (config.run_dir / "checkpoints").mkdir(parents=True)
    (config.run_dir / "config.json").write_text("{}")
    (config.run_dir / "metrics.jsonl").write_text("")
    config.check()
    assert COMMANDS[0].progress(config) == 0
    leave_checkpoint(config)
    assert COMMANDS[0].progress(config) == 8
    command = resume_command(config.run_dir)
    assert refused(config) == f"{config.run_dir} holds a run already: resume it with {command}, or give another --name"
    assert command == f"hpcgender train --runs {tmp_path / 'runs'} --name a --resume"
    assert resume_command(Path("runs/b")) == "hpcgender train --name b --resume"


def test_the_best_weights_alone_are_neither_overwritten_nor_resumed(shards: Path, tmp_path: Path) -> None:
    best = leave_checkpoint(options(shards, tmp_path), "best.pt")
    assert "holds a run already" in refused(options(shards, tmp_path))
    says = refused(options(shards, tmp_path, resume=True))
    assert f"no checkpoint to resume from: give another --name, and --pretrained {best}" in says


@pytest.mark.parametrize("content", ["", "garbage = ["])
def test_a_run_whose_options_are_lost_says_where_they_belong(shards: Path, tmp_path: Path, content: str) -> None:
    config = options(shards, tmp_path)
    stored = leave_checkpoint(config).parent.parent / "config.toml"
    if content:
        stored.write_text(content)
    with pytest.raises(UserError) as error:
        parsed("--runs", config.runs, "--name", "a", "--resume")
    assert str(stored) in str(error.value)
    assert str(error.value).endswith(f"restore it, e.g. hpcgender train OPTIONS --print-config > {stored}")


def test_nothing_to_resume_and_nothing_to_start_with(tmp_path: Path) -> None:
    says = refused(options(tmp_path / "nowhere", tmp_path, resume=True))
    assert says.startswith(f"{tmp_path / 'runs' / 'a'} holds no run to resume, and cannot start: no manifest.json in")


def test_a_used_name_is_refused_without_torch(shards: Path, tmp_path: Path) -> None:
    leave_checkpoint(options(shards, tmp_path))
    code = (
        "import sys; from pathlib import Path; from hpcgender.commands.train import TrainConfig\n"
        "try: TrainConfig(data=Path(sys.argv[1]), runs=Path(sys.argv[2]), name='a', tasks=('age',)).check()\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(shards), str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "holds a run already" in done.stdout
    assert done.stdout.endswith(" False\n")


def test_the_name_is_checked_again_under_the_lock(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(shards, tmp_path)

    @contextmanager
    def late(path: Path, *rest: Any, **others: Any) -> Iterator[None]:
        leave_checkpoint(config)  # the other training made one since this one's first check
        with locked(path, *rest, **others):
            yield

    monkeypatch.setattr(loop, "locked", late)
    with pytest.raises(UserError, match="holds a run already"):
        loop.train(config)
    assert sorted(path.name for path in config.run_dir.iterdir()) == ["checkpoints", "train.lock"]


def test_a_second_training_of_a_name_does_not_wait(shards: Path, tmp_path: Path) -> None:
    config = options(shards, tmp_path)
    config.run_dir.mkdir(parents=True)
    with (
        locked(config.run_dir / "train.lock", config.run_dir, ""),
        pytest.raises(UserError, match=r"is locked by process \d+ on .*: cancel that, or give another --name"),
    ):
        loop.train(config)


def parsed(*words: object) -> TrainConfig:
    return parse_options(TrainConfig, "hpcgender train", [str(word) for word in words])


@pytest.fixture(scope="module")
def begun(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of one epoch; its learning rate falls by steps."""
    runs = tmp_path_factory.mktemp("begun") / "runs"
    config = options(shards, runs, runs=runs, schedule="step", decay_every=2, warmup_epochs=0.0, keep=2)
    assert loop.train(config) == 0
    return config


def test_a_run_resumes_by_its_own_options(begun: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    again = parsed("--runs", begun.runs, "--name", "a", "--resume")
    assert again.plain() == {**begun.plain(), "resume": True}
    stored = (begun.run_dir / "config.toml").read_text()
    (begun.run_dir / "config.toml").write_text(stored.replace("stop_after = 0.0", "stop_after = 60.0"))
    assert parsed("--runs", begun.runs, "--name", "a", "--resume").stop_after == 0  # of the start that was given it
    (begun.run_dir / "config.toml").write_text(stored)
    other = parsed("--runs", begun.runs, "--name", "a", "--resume", "--keep", 5, "--accumulate", 2)
    other.check()
    assert (other.keep, other.accumulate, other.batch_size) == (5, 2, 32)
    assert loop.train(again) == 0
    command = resume_command(begun.run_dir)
    assert capsys.readouterr().out.endswith(f"; to train longer: {command} --epochs 2\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--lr 0.02", "was trained with --lr 0.01, not 0.02"),
        ("--batch-size 100000", "was trained with --batch-size 32, not 100000"),
        ("--tasks gender age", "was trained with --tasks gender, not gender age"),
        ("--sync-bn", "was trained with --no-sync-bn, not --sync-bn"),
        ("--preset vgg16", "was trained with --"),
    ],
)
def test_what_may_not_change_is_named_with_the_command_that_works(begun: TrainConfig, words: str, says: str) -> None:
    line = refused(parsed("--runs", begun.runs, "--name", "a", "--resume", *words.split()))
    assert line.startswith(f"{begun.run_dir} {says}")
    assert f": resume it with {resume_command(begun.run_dir)}, or give another --name" in line


def test_other_data_is_named(begun: TrainConfig, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text((shards / "manifest.json").read_text() + "\n")
    line = refused(parsed("--runs", begun.runs, "--name", "a", "--resume", "--data", tmp_path))
    assert f"other data than is in {tmp_path} now, which it read from {shards}: give that as --data" in line


def test_a_finished_run_can_be_extended_and_not_shortened(
    begun: TrainConfig, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loop.train(replace(begun, runs=tmp_path, epochs=3)) == 0
    assert loop.train(parsed("--runs", begun.runs, "--name", "a", "--resume", "--epochs", 3)) == 0
    assert "extended from 1 to 3 epochs: from here on the learning rate is that of a run of 3 epochs, now 1.0e-02" in (
        capsys.readouterr().out
    )
    of_whole, of_parts = (
        torch.load(runs / "a" / "checkpoints" / "last.pt", weights_only=True)["model"]
        for runs in (tmp_path, begun.runs)
    )
    assert all(torch.equal(value, of_parts[name]) for name, value in of_whole.items())
    line = refused(parsed("--runs", begun.runs, "--name", "a", "--resume", "--epochs", 2))
    assert "is a run of 3 epochs, and --epochs 2 is fewer: resume it with" in line


def test_a_place_that_cannot_be_written_is_refused(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    assert refused(options(shards, tmp_path)) == f"{tmp_path / 'runs'} is no directory: give another one as --runs"


def test_one_image_at_a_time_cannot_be_normalised(shards: Path, tmp_path: Path) -> None:
    config = options(shards, tmp_path, model="resnet18", batch_size=4)
    learner.check_micro_batches(config, 2)
    for world_size, accumulate in ((4, 1), (2, 2), (1, 4)):
        processes = "1 process" if world_size == 1 else f"{world_size} processes"
        said = f"^--batch-size 4 on {processes} with --accumulate {accumulate} computes one image"
        with pytest.raises(UserError, match=said):
            learner.check_micro_batches(replace(config, accumulate=accumulate), world_size)
    learner.check_micro_batches(replace(config, image_size=64), 4)
    learner.check_micro_batches(replace(config, pretrained="a.pt", freeze="backbone"), 4)  # takes running statistics
    normalised = replace(config, head_layers=(8,), head_norm=True, image_size=64)
    after_pooling = replace(config, model="timm:mobilenetv4_conv_small_035", image_size=64)
    for one in (normalised, after_pooling):
        learner.check_micro_batches(one, 2)
        with pytest.raises(UserError, match=f"with which {one.model} cannot be trained at 64 px: give larger batches$"):
            learner.check_micro_batches(one, 4)


def test_initial_weights_of_a_run_that_has_begun_are_gone(shards: Path, tmp_path: Path) -> None:
    config = options(shards, tmp_path)
    leave_checkpoint(config, "step-00000000.pt")
    begun = {**config.plain(), "manifest": read_manifest(shards).sha256, "val_manifest": ""}
    (config.run_dir / "config.json").write_text(json.dumps(begun))
    replace(config, resume=True, save_initial=True).check()
    newest = leave_checkpoint(config)
    replace(config, resume=True).check()
    advice = "has begun, and its first weights are gone: leave it out, or give another --name"
    assert refused(replace(config, resume=True, save_initial=True)) == f"--save-initial: {config.run_dir} {advice}"
    newest.with_name("initial.pt").write_bytes(b"weights")
    replace(config, resume=True, save_initial=True).check()


@pytest.mark.parametrize(
    ("model", "advice"),
    [("resnet18", "give --output-stride 8 or a larger --image-size"), ("compact", "give a larger --image-size")],
)
def test_a_single_cell_has_the_remedies_that_the_model_takes(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, advice: str
) -> None:
    size = 32 if model == "resnet18" else 16
    assert loop.train(options(shards, tmp_path, model=model, image_size=size, limit=32, last_batch="pad")) == 0
    line = f"heat maps of {model} at {size} px have a single cell: {advice} if you want to see where it looks\n"
    assert line in capsys.readouterr().out


def test_fp16_is_for_gpus_and_its_refusal_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    config = options(shards, tmp_path, precision="fp16")
    with pytest.raises(UserError, match="--precision fp16 is for GPUs: on a CPU give bf16 or fp32"):
        loop.train(config)
    assert not config.run_dir.exists()


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for device, names in (("cpu", r"g\+\+"), ("cuda", "gcc or clang")):
        with pytest.raises(UserError, match=rf"--compile needs a compiler, and {names} is not in PATH"):
            learner.check_compiler(torch.device(device))
    monkeypatch.setenv("CXX", "nothing -O2")
    with pytest.raises(UserError, match="and nothing -O2 is not in PATH"):
        learner.check_compiler(torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"),
            "out of GPU memory, 20.00 MiB more were needed: give less",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of GPU memory: give less"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory: give less"),
        (MemoryError(), "out of memory: give less"),
    ],
)
def test_memory_that_runs_out_is_one_line(error: Exception, says: str) -> None:
    with pytest.raises(UserError) as raised, enough_memory("give less"):
        raise error
    assert str(raised.value) == says
    with pytest.raises(RuntimeError, match="another"), enough_memory("give less"):
        raise RuntimeError("another")


def test_memory_that_runs_out_at_the_first_step_blocks_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(shards, tmp_path)

    def step(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "step", step)
        with pytest.raises(UserError, match=r"give --accumulate 2, .* or start with a smaller --batch-size"):
            loop.train(config)
    assert loop.train(replace(config, batch_size=16)) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give --accumulate 2, with which batches stay the same"),
        ({"accumulate": 4}, "give --accumulate 8, with which batches stay the same"),
        ({"compile": True, "cuda_graphs": True}, "give --accumulate 2 without --cuda-graphs, with which batches stay"),
    ],
)
def test_what_helps_where_memory_is_full_is_not_refused(options: dict[str, Any], says: str) -> None:
    assert loop.memory_remedy(TrainConfig(batch_size=256, **options)).startswith(says)
