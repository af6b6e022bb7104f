"""What a pass over a split begins with: a checkpoint, the images, the ranks that share them, requests to stop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch

from hpcgender.checkpoint import Trained, git_revision, load_trained
from hpcgender.checkpoint_file import digest
from hpcgender.distributed import Ranks, process_group, redirect_output
from hpcgender.inference.config import SplitConfig
from hpcgender.inference.facts import LOCK, WORK, CheckpointFacts, ComputeFacts, SplitFacts
from hpcgender.memory import enough_memory
from hpcgender.precision import Precision, for_inference
from hpcgender.stop import StopSignal
from hpcgender.version import __version__
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import REQUEUE
from shard_tools.base.lock import locked
from shard_tools.base.text import utc
from shard_tools.manifest import Manifest, read_manifest

Options = TypeVar("Options", bound=SplitConfig)


@dataclass(frozen=True)
class Session(Generic[Options]):
    """This rank's view of them."""

    config: Options
    """With this `precision`, whatever was asked for."""
    manifest: Manifest
    trained: Trained
    ranks: Ranks
    precision: Precision
    stop: StopSignal

    @property
    def exit_code(self) -> int:
        """0, or REQUEUE if a stop was requested before the end."""
        return REQUEUE if self.stop.reason else 0

    def checkpoint_facts(self) -> CheckpointFacts:
        trained = self.trained
        return CheckpointFacts(
            path=str(self.config.checkpoint.resolve()),
            digest=digest(self.config.checkpoint),
            model=trained.name,
            image_size=trained.image_size,
            tasks=trained.config.tasks,
            epoch=trained.epoch,
            step=trained.about["step"],
            revision=trained.about["revision"],
            manifest=trained.about["manifest"],
            options=trained.about["config"],
            val_manifest=trained.about["val_manifest"],
            leaks=tuple(trained.about["leaks"]),
        )

    def split_facts(self, left_out: int) -> SplitFacts:
        return SplitFacts(
            path=str(self.config.data.resolve()),
            source=self.manifest.source,
            manifest=self.manifest.sha256,
            split=self.config.split,
            images=self.manifest.split(self.config.split).samples,
            left_out=left_out,
            classes=self.manifest.classes,
        )

    def compute_facts(self, began: float, seconds: float, images: int) -> ComputeFacts:
        """Of work on `images` that began at `began`, seconds of Unix time."""
        device = self.ranks.device
        return ComputeFacts(
            began=utc(began),
            seconds=seconds,
            images_per_s=images / seconds,
            world_size=self.ranks.world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            threads=torch.get_num_threads(),
            versions={"hpcgender": __version__, "torch": torch.__version__, "numpy": np.__version__},
            revision=git_revision(),
            job=os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID", ""),
        )


@contextmanager
def open_session(config: Options) -> Iterator[Session[Options]]:
    """Joins the ranks and opens what `config` names; UserError if it is missing or does not fit together.

    If a stop was requested, no rank leaves before all have saved their work: one that ends with exit code 99 has the
    others ended.
    """
    config.check()
    manifest = read_manifest(config.data)
    memory = enough_memory("give a smaller --batch-size")
    with process_group() as ranks, StopSignal(config.stop_after) as stop, memory, ExitStack() as exits:
        redirect_output(config.out_dir / "logs", ranks.rank)
        trained = load_trained(config.checkpoint, ranks.device, manifest.classes)
        precision = for_inference(config.precision, trained.about["config"], ranks.device)
        config = replace(config, precision=precision.name)
        if ranks.is_first:
            work = config.out_dir / WORK
            work.mkdir(parents=True, exist_ok=True)
            exits.enter_context(locked(work / LOCK, config.out_dir, "wait for that, or give another --out"))
            config.check()  # again: another command may have written there since, and the precision is known
            if line := crop_warning(trained.crop, manifest):
                print(line, flush=True)
        trained.model.requires_grad_(False)
        yield Session(config, manifest, trained, ranks, precision, stop)
        if stop.reason:
            ranks.gather(None)
            if ranks.is_first:
                print(f"stopped by {stop.reason}, the work so far is saved: the same command resumes", flush=True)
            ranks.broadcast(None)


def crop_warning(trained: Recipe | None, manifest: Manifest) -> str:
    """What to say where a model sees a face in another frame than in training; empty where it is the same."""
    frames = [recipe.frame if recipe else "images of which no crop is known" for recipe in (trained, manifest.crop)]
    if frames[0] == frames[1]:
        return ""
    advice = "pack them with --align, or state with --aligned that they are such crops already"
    return (
        f"WARNING: the model was trained on {frames[0]}, and {manifest.root} has {frames[1]}: scores may be lower for"
        f" that reason alone; {advice if trained else 'pack them as they are'}"
    )
