"""Training: a run from its start, or from where it stopped, to its last epoch."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpcgender.checkpoint import git_revision, read_checkpoint, save_checkpoint
from hpcgender.data.loader import evaluation_loader, training_loader
from hpcgender.distributed import Ranks, process_group, speak_into
from hpcgender.evaluate.measure import measure
from hpcgender.metrics import Scores, Tally
from hpcgender.models.registry import create
from hpcgender.precision import Precision
from hpcgender.train.config import TrainConfig
from hpcgender.train.log import EpochRecord, RunLog, epoch_line
from hpcgender.train.optimiser import learning_rate, sgd
from shard_tools.commands import UserError
from shard_tools.manifest import Manifest, read_manifest

MAY_CHANGE = {"data", "name", "runs", "resume", "workers", "backend", "stage_to", "max_bad", "precision"}
"""What a resumed run may set otherwise than it began."""


def train(config: TrainConfig) -> None:
    """Trains as `config` says; rank 0 prints a line an epoch and writes the run directory."""
    config.check()
    manifest = read_manifest(config.data)
    with process_group() as ranks:
        speak_into(config.run_dir / "logs", ranks.rank)
        run = Run(config, manifest, ranks)
        if run.epoch == config.epochs:
            if ranks.is_first:
                print(f"{config.run_dir} is finished: {config.epochs} epochs, best accuracy {run.best:.2%}")
            return
        with closing(run):
            run.train()


class Run:
    """A training run: the model, the optimiser, and how far it is."""

    def __init__(self, config: TrainConfig, manifest: Manifest, ranks: Ranks) -> None:
        self.config = config
        self.manifest = manifest
        self.ranks = ranks
        self.checkpoints = config.run_dir / "checkpoints"
        self.precision = Precision(config.precision, ranks.device)
        torch.manual_seed(config.seed)
        model = create(config.model, len(manifest.classes), config.output_stride)
        self.model = model.to(ranks.device).to(memory_format=torch.channels_last)
        self.optimiser = sgd(self.model, config)
        self.epoch = 0
        self.best = -1.0
        if config.resume and (self.checkpoints / "last.pt").exists():
            self.restore(self.checkpoints / "last.pt")
        self.parallel: nn.Module = self.model
        if ranks.world_size > 1:
            self.parallel = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.train_images = training_loader(config, manifest, ranks)
        self.val_images = evaluation_loader(
            config, manifest, "val", batch_size=config.batch_size, image_size=config.image_size, ranks=ranks
        )

    def train(self) -> None:
        """Trains the epochs that are left."""
        log = self.open_log() if self.ranks.is_first else None
        try:
            for epoch in range(self.epoch, self.config.epochs):
                begin = time.perf_counter()
                waited = self.train_images.waited
                left_out = self.left_out
                scores = self.train_epoch(epoch)
                trained = time.perf_counter() - begin
                waited = self.train_images.waited - waited
                val = measure(self.model, self.val_images, self.ranks, self.precision)
                sums = torch.tensor([waited, trained, self.left_out - left_out], dtype=torch.float64)
                wait, total, bad = self.ranks.sum(sums.to(self.ranks.device)).tolist()
                self.epoch = epoch + 1
                improved = val.accuracy > self.best
                self.best = max(self.best, val.accuracy)
                if log:
                    seconds = time.perf_counter() - begin
                    record = EpochRecord(
                        epoch=self.epoch,
                        epochs=self.config.epochs,
                        step=self.epoch * len(self.train_images),
                        train=scores,
                        val=val,
                        lr=self.optimiser.param_groups[0]["lr"],
                        images_per_s=scores.images / trained,
                        data_wait=wait / total,
                        bad_images=round(bad),
                        seconds=seconds,
                        eta=seconds * (self.config.epochs - self.epoch),
                    )
                    # In this order nothing is lost by a kill: a record without its checkpoint is dropped on resuming.
                    log.write(record)
                    self.save(improved)
                    print(epoch_line(record), flush=True)
                    if bad:
                        print(f"{bad:.0f} images of this epoch do not decode: the ranks' logs name them", flush=True)
            if log:
                print(f"best validation accuracy {self.best:.2%}, its weights are {self.checkpoints / 'best.pt'}")
        finally:
            if log:
                log.close()

    @property
    def left_out(self) -> int:
        """Times that an image did not decode on this rank so far."""
        return self.train_images.left_out + self.val_images.left_out

    def train_epoch(self, epoch: int) -> Scores:
        """One pass over the training images: what the model said of them before each step."""
        self.model.train()
        tally = Tally(self.ranks.device)
        steps = len(self.train_images)
        for number, batch in enumerate(self.train_images.epoch(epoch)):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self.config, epoch * steps + number, steps)
            images = batch.images.to(memory_format=torch.channels_last)
            with self.precision.autocast():
                logits = self.parallel(images)
                loss = F.cross_entropy(logits, batch.gender, ignore_index=-1)
            self.optimiser.zero_grad()
            self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.precision.scaler.step(self.optimiser)
            self.precision.scaler.update()
            tally.add(logits.detach(), batch.gender)
        return tally.scores(self.ranks)

    def open_log(self) -> RunLog:
        """Makes the run directory, says what is about to be trained, and opens the log."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        (self.config.run_dir / "config.json").write_text(json.dumps(self.config.plain(), indent=1) + "\n")
        images = {name: split.samples for name, split in self.manifest.splits.items()}
        print(
            f"{'going on with' if self.epoch else 'training'} {self.config.run_dir}: {self.config.model} at "
            f"{self.config.image_size} px, {images['train']} images, {images['val']} for validation, "
            f"batch {self.config.batch_size} on {self.ranks.world_size} x {self.ranks.device.type}, "
            f"{self.precision.name}, from epoch {self.epoch + 1}",
            flush=True,
        )
        if self.config.sampling != "none":
            counts = self.manifest.split("train").counts
            drawn = zip(self.train_images.targets, counts.items(), strict=True)
            print(
                f"{self.config.sampling}: an epoch draws "
                + ", ".join(f"{target} of {count} {name}" for target, (name, count) in drawn),
                flush=True,
            )
        return RunLog(self.config.run_dir, self.epoch, self.epoch * len(self.train_images))

    def save(self, improved: bool) -> None:
        """Writes the checkpoint to go on from, and the best one without the optimiser's state."""
        content = {
            "model": self.model.state_dict(),
            "classes": list(self.manifest.classes),
            "epoch": self.epoch,
            "step": self.epoch * len(self.train_images),
            "best": self.best,
            "config": self.config.plain(),
            "manifest": self.manifest.sha256,
            "revision": git_revision(),
        }
        if improved:
            save_checkpoint(self.checkpoints / "best.pt", content)
        state = {"optimiser": self.optimiser.state_dict(), "scaler": self.precision.scaler.state_dict()}
        save_checkpoint(self.checkpoints / "last.pt", {**content, **state})

    def restore(self, path: Path) -> None:
        """Goes back to the state of a checkpoint; UserError if it was trained on other data or with other options."""
        content = read_checkpoint(path)
        if content["manifest"] != self.manifest.sha256:
            raise UserError(f"{path} was trained on other data than {self.config.data}: give that, or another --name")
        for field, value in self.config.plain().items():
            before = content["config"].get(field)
            if field not in MAY_CHANGE and json.loads(json.dumps(before)) != json.loads(json.dumps(value)):
                raise UserError(
                    f"{path} was trained with --{field.replace('_', '-')} {before}, not {value}: "
                    "give that, or another --name"
                )
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.precision.scaler.load_state_dict(content["scaler"])
        self.epoch, self.best = content["epoch"], content["best"]

    def close(self) -> None:
        self.train_images.close()
        self.val_images.close()
