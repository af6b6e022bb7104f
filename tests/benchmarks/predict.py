"""How fast predict is on files beside evaluate on the same images packed, and both beside a bare forward pass.

    python -m tests.benchmarks.predict [--quick] [--images DIR] [--model NAME] [--image-size N] [--batch-size N]

Uses a GPU if there is one. The forward pass is of images that are in memory as the network takes them, in PyTorch's own
threads, in each memory format; the faster one counts. evaluate's speed is that in its evaluation.json. Without a GPU
the same cores load images and compute, so that both at once can be no faster than one after the other: that bound is
printed, too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import tyro

from hpcgender.checkpoint import load_trained, save_checkpoint
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks, select_device
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import read_evaluation
from hpcgender.models.create import create
from hpcgender.predict.images import Listing
from hpcgender.predict.model import load
from shard_tools.commands.synthetic import SyntheticConfig
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.synthetic.files import draw_faces
from tests.benchmarks.ratios import measure_rates, print_ratio, print_speeds


@dataclass(frozen=True, kw_only=True)
class PredictBenchmark:
    """How fast predict is on files beside evaluate on the same images packed, and both beside a bare forward pass."""

    quick: bool = False
    """Few images and one round: a check that it runs, no measurement."""
    images: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: 2,307 drawn faces)")] = None
    """Directory with images in directories of their class, such as man and woman."""
    model: str = "resnet18"
    image_size: int = 64
    """Height and width of the network's input, pixels."""
    batch_size: int = 64
    """Images in a batch."""
    rounds: int = 3


def main(benchmark: PredictBenchmark) -> None:
    device = select_device()
    rounds = 1 if benchmark.quick else benchmark.rounds
    with tempfile.TemporaryDirectory(prefix="benchmark-predict-") as name, redirect_stderr(StringIO()):
        root = Path(name)
        files = benchmark.images or drawn(root / "faces", 64 if benchmark.quick else 2307)
        with redirect_stdout(StringIO()):
            pack(Folders(images=files, out=root / "data", val=0, test=1, near_duplicates=False))
        checkpoint = untrained(benchmark, root / "run" / "checkpoints" / "best.pt")
        contenders = {
            **{
                f"bare forward pass, {words}": forward(benchmark, checkpoint, device, layout)
                for words, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last))
            },
            "loading alone, packed images": loading(benchmark, root, device),
            "evaluate, packed images": evaluating(benchmark, checkpoint, root),
            "predict, the files": predicting(benchmark, checkpoint, files),
        }
        for work in contenders.values():
            work()  # the first time is slower
        speeds = measure_rates(contenders, rounds)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    size = benchmark.image_size
    title = f"{benchmark.model}, batches of {benchmark.batch_size} images of {size}x{size} pixels, {where}"
    print_speeds(title, "images/s", speeds)
    *bare, loaded, evaluated, predicted = speeds.values()
    faster = max(bare, key=median)
    print_ratio("predict_over_evaluate", predicted, evaluated, "at least 0.9")
    print_ratio("predict_over_forward", predicted, faster, "at least 0.9")
    print_ratio("evaluate_over_forward", evaluated, faster, "at least 0.95")
    if device.type == "cpu":
        both = [1 / (1 / one + 1 / other) for one, other in zip(faster, loaded, strict=True)]
        print_ratio("evaluate_over_loading_then_forward", evaluated, both, "at least 0.95")
        print_ratio("predict_over_loading_then_forward", predicted, both, "at least 0.95")


def drawn(directory: Path, count: int) -> Path:
    """Drawn faces of 200x200 pixels, in a directory for each class."""
    with redirect_stdout(StringIO()):
        draw_faces(SyntheticConfig(out=directory, count=count, size=200, names="morph"))
    for face in list(directory.iterdir()):
        of_class = directory / ("male" if "M" in face.stem else "female")
        of_class.mkdir(exist_ok=True)
        face.rename(of_class / face.name)
    return directory


def untrained(benchmark: PredictBenchmark, path: Path) -> Path:
    """A checkpoint of the model, with random weights."""
    config = TrainConfig(model=benchmark.model, image_size=benchmark.image_size)
    path.parent.mkdir(parents=True)
    content = {
        "model": create(config, 2).state_dict(),
        "classes": ["female", "male"],
        "epoch": 1,
        "step": 1,
        "config": config.plain(),
        "manifest": "",
        "revision": "",
        "val_manifest": "",
        "leaks": [],
        "crop": None,
    }
    save_checkpoint(path, content)
    return path


def forward(
    benchmark: PredictBenchmark, checkpoint: Path, device: torch.device, layout: torch.memory_format
) -> Callable[[], float]:
    """The model alone, for about as many images as the others have."""
    model = load_trained(checkpoint, device).model.to(memory_format=layout)
    count, size = benchmark.batch_size, benchmark.image_size
    images = torch.rand(count, 3, size, size, device=device).contiguous(memory_format=layout) * 2 - 1
    steps = 2 if benchmark.quick else 2304 // count

    @torch.no_grad()
    def work() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            logits = model(images).gender
        assert logits is not None
        logits.cpu()
        return steps * count / (time.perf_counter() - begin)

    return work


def loading(benchmark: PredictBenchmark, root: Path, device: torch.device) -> Callable[[], float]:
    """Reading and decoding as evaluate does, without a network: by its CPU time, as if all cores did nothing else."""
    manifest = read_manifest(root / "data")
    config, ranks = ReadConfig(data=root / "data"), Ranks(0, 1, device)

    def work() -> float:
        batch_size, image_size = benchmark.batch_size, benchmark.image_size
        loader = EvaluationLoader(config, manifest, "test", batch_size=batch_size, image_size=image_size, ranks=ranks)
        with closing(loader):
            begin, images = time.process_time(), 0
            with closing(loader.epoch(0)) as batches:
                for batch in batches:
                    images += len(batch.samples)
            return images * (os.cpu_count() or 1) / (time.process_time() - begin)

    return work


def evaluating(benchmark: PredictBenchmark, checkpoint: Path, root: Path) -> Callable[[], float]:
    """`hpcgender evaluate`."""
    config = EvaluateConfig(
        checkpoint=checkpoint, data=root / "data", out=root / "evaluation", batch_size=benchmark.batch_size
    )

    def work() -> float:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            evaluate(config)
        return read_evaluation(config.out_dir).run.images_per_s

    return work


def predicting(benchmark: PredictBenchmark, checkpoint: Path, files: Path) -> Callable[[], float]:
    """What `hpcgender predict` does once the model is there."""
    model = load(checkpoint, batch_size=benchmark.batch_size)

    def work() -> float:
        begin = time.perf_counter()
        listing = Listing([str(files)], BytesIO())
        assert not any(found.error for found in model.predictions(listing.images))
        return len(listing.images) / (time.perf_counter() - begin)

    return work


if __name__ == "__main__":
    main(tyro.cli(PredictBenchmark))
