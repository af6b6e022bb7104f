"""Training: a run from its start, or from where it stopped, to its last epoch."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint import git_revision, read_checkpoint
from hpcgender.commands.train import MAY_CHANGE, TrainConfig
from hpcgender.data.loader import evaluation_loader, training_loader
from hpcgender.distributed import Ranks, process_group, redirect_output
from hpcgender.evaluate.measure import measure
from hpcgender.metrics import GradientNorms, Scores, Tally
from hpcgender.stop import StopSignal
from hpcgender.train.learner import Learner, NonFiniteError
from hpcgender.train.lock import only_training
from hpcgender.train.log import EpochRecord, RunLog, epoch_line, peak_memory_mb
from hpcgender.train.progress import EpochProgress
from hpcgender.train.saver import Saver, latest
from shard_tools.base.errors import REQUEUE, UserError
from shard_tools.manifest import Manifest, read_manifest

FIRST_STEPS = 20
"""Steps after which their time is first known, and so how many there are between two checkpoints."""


def train(config: TrainConfig) -> int:
    """Trains as `config` says; rank 0 prints a line an epoch and writes the run directory.

    Returns 0 when the run is finished, and REQUEUE when it was asked to stop before.
    """
    config.check()
    manifest = read_manifest(config.data)
    timeout = timedelta(minutes=config.timeout)
    with ExitStack() as exits, StopSignal(config.stop_after, timeout) as stop, process_group(timeout) as ranks:
        redirect_output(config.run_dir / "logs", ranks.rank)
        if ranks.is_first:
            exits.enter_context(only_training(config.run_dir))
        with closing(Trainer(config, manifest, ranks, stop)) as trainer:
            if trainer.epoch == config.epochs:
                if ranks.is_first:
                    print(f"{config.run_dir} is finished: {config.epochs} epochs, best {trainer.best_said()}")
                return 0
            trainer.train()
    return REQUEUE if stop.reason else 0


class Trainer:
    """A training run: what learns, how far it is, and what it has counted in this epoch."""

    def __init__(self, config: TrainConfig, manifest: Manifest, ranks: Ranks, stop: StopSignal) -> None:
        self.config = config
        self.manifest = manifest
        self.ranks = ranks
        self.stop = stop
        self.folder = config.run_dir / "checkpoints"
        # One rank looks: on network storage others may not see the newest yet.
        found = latest(self.folder) if config.resume and ranks.is_first else None
        path = ranks.broadcast(found[0] if found else None)
        if path and not found:
            found = path, read_checkpoint(path)
        self.learner = Learner(config, len(manifest.classes), ranks, fresh=found is None)
        self.tally = Tally(ranks.device, config.task_weights, binned=True)
        self.norms = GradientNorms(ranks.device)
        self.epoch = 0
        """Epochs that are done, validation and all."""
        self.number = 0
        """Steps that are done of the epoch after them."""
        self.best: float | None = None
        self.began = time.perf_counter()
        self.steps_between = 0
        """Steps between two checkpoints; 0 until their time is known."""
        if found:
            self.restore(*found)
        self.train_images = training_loader(config, manifest, ranks)
        self.val_images = evaluation_loader(
            config, manifest, "val", batch_size=config.batch_size, image_size=config.image_size, ranks=ranks
        )
        self.steps = len(self.train_images)
        self.saver: Saver | None = None

    def train(self) -> None:
        """Trains the epochs that are left, or until all are asked to stop."""
        log = self.open_log() if self.ranks.is_first else None
        try:
            while self.epoch < self.config.epochs and not self.stop.reason:
                self.train_epoch(log)
        except NonFiniteError as error:
            keys = b" ".join(self.train_images.index["key"][error.batch.samples]).decode()
            raise UserError(
                f"the loss or its gradients are not finite at step {error.step}, with the images {keys}: go on from "
                "the last checkpoint with --resume and --skip-nonfinite, or begin anew with a smaller --lr"
            ) from None
        finally:
            if log:
                log.close()
            if self.saver:
                self.saver.close()
        # A rank that ends with another code than 0 has the others ended: none does before the last checkpoint is there.
        self.ranks.barrier(timedelta(minutes=self.config.timeout))
        if not self.ranks.is_first:
            return
        if self.stop.reason:
            if self.learner.steps == 0 and self.stop.out_of_time:  # to be started again would go on for ever
                raise UserError(f"stopped by {self.stop.reason} before the first step: give it more time")
            print(
                f"stopped by {self.stop.reason} after step {self.number} of {self.steps} of epoch {self.epoch + 1}: "
                "go on with --resume",
                flush=True,
            )
        else:
            print(f"best {self.best_said()}, its weights are {self.folder / 'best.pt'}", flush=True)

    def train_epoch(self, log: RunLog | None) -> None:
        """What is left of an epoch: its steps, the validation, the record and the checkpoint."""
        begin = time.perf_counter()
        first, waited, left_out = self.number, self.train_images.waited, self.left_out
        self.train_steps()
        if self.stop.reason:
            self.save()
            return
        trained = time.perf_counter() - begin
        waited = self.train_images.waited - waited
        batches = self.stop.until_requested(self.val_images.epoch(0), len(self.val_images), self.ranks)
        val = measure(self.learner.tested, batches, self.ranks, self.learner.precision, self.config)
        if self.stop.reason:  # asked to stop meanwhile: the steps of the epoch are done, and it will be validated anew
            self.save()
            return
        sums = torch.tensor([waited, trained, self.left_out - left_out], dtype=torch.float64)
        wait, total, bad = self.ranks.sum(sums.to(self.ranks.device)).tolist()
        train, memory = self.tally.scores(self.ranks), peak_memory_mb(self.ranks)
        mean_norm, max_norm = self.norms.mean_and_max()
        measured = self.measured(val)
        improved = self.best is None or measured > self.best
        self.best = measured if self.best is None else max(self.best, measured)
        seconds = time.perf_counter() - begin
        whole = seconds * self.steps / (self.steps - first) if first < self.steps else seconds
        record = EpochRecord(
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            step=(self.epoch + 1) * self.steps,
            train=train,
            val=val,
            lr=max(group["lr"] for group in self.learner.optimizer.param_groups),
            gradient_norm=mean_norm,
            gradient_norm_max=max_norm,
            images_per_s=(self.steps - first) * self.config.batch_size / trained,
            data_wait=wait / total,
            bad_images=round(bad),
            peak_memory_mb=memory,
            seconds=seconds,
            eta=whole * (self.config.epochs - self.epoch - 1),
        )
        self.epoch, self.number = self.epoch + 1, 0
        self.tally = Tally(self.ranks.device, self.config.task_weights, binned=True)
        self.norms = GradientNorms(self.ranks.device)
        # In this order nothing is lost by a kill: a record without its checkpoint is dropped on resuming.
        if log:
            log.write(record)
        self.save(improved)
        if log:
            print(epoch_line(record), flush=True)
            if bad:
                print(f"{bad:.0f} images of this epoch do not decode: the ranks' logs name them", flush=True)

    def train_steps(self) -> None:
        """The steps that are left of an epoch, with checkpoints in between."""
        self.learner.network.train()
        config, first = self.config, self.number
        batches = self.train_images.epoch(self.epoch, first)
        with EpochProgress(self.epoch + 1, config.epochs, self.steps, config.batch_size, first_step=first) as progress:
            for batch in self.stop.until_requested(batches, self.steps - first, self.ranks):
                loss = self.learner.step(batch, self.epoch, self.number, self.steps, self.tally, self.norms)
                self.number += 1
                progress.update(self.number, loss)
                if self.learner.steps == FIRST_STEPS:
                    self.steps_between = self.agree_on_steps((time.perf_counter() - self.began) / FIRST_STEPS)
                if self.steps_between and self.number % self.steps_between == 0 and self.number < self.steps:
                    self.save()
        self.learner.check_finite()

    def agree_on_steps(self, seconds: float) -> int:
        """Steps between two checkpoints, the same on all ranks, by what a step takes."""
        if not self.config.checkpoint_minutes:
            return 0
        mean = float(self.ranks.sum(torch.tensor([seconds], device=self.ranks.device))) / self.ranks.world_size
        return max(1, round(self.config.checkpoint_minutes * 60 / mean))

    def measured(self, val: Scores) -> float:
        """What a run is to make largest: the accuracy, or without gender minus the mean error of age."""
        return val.accuracy if "gender" in self.config.tasks else -val.age_mae

    def best_said(self) -> str:
        if self.best is None:
            return "not known"
        if "gender" in self.config.tasks:
            return f"validation accuracy {self.best:.2%}"
        return f"validation age MAE {-self.best:.2f}"

    @property
    def left_out(self) -> int:
        """Times that an image did not decode on this rank so far."""
        return self.train_images.left_out + self.val_images.left_out

    def open_log(self) -> RunLog:
        """Makes the run directory, says what is about to be trained, and opens the log."""
        config, split = self.config, self.manifest.split("train")
        self.saver = Saver(self.folder, config.keep)
        content = {**config.plain(), "manifest": self.manifest.sha256}
        (config.run_dir / "config.json").write_text(json.dumps(content, indent=1) + "\n")
        (config.run_dir / "config.toml").write_text(config.toml())
        images = {name: part.samples for name, part in self.manifest.splits.items()}
        print(
            f"{'going on with' if self.epoch or self.number else 'training'} {config.run_dir}: {config.model} at "
            f"{config.image_size} px, {images['train']} images, {images['val']} for validation, "
            f"batch {config.batch_size} on {self.ranks.world_size} x {self.ranks.device.type}, "
            f"{self.learner.precision.name}, from epoch {self.epoch + 1}"
            + (f", after step {self.number} of {self.steps}" if self.number else ""),
            flush=True,
        )
        if self.learner.loaded:
            print(self.learner.loaded, flush=True)
        if config.sampling != "none":
            drawn = zip(self.train_images.targets, split.counts.items(), strict=True)
            told = ", ".join(f"{target} of {count} {name}" for target, (name, count) in drawn)
            print(f"{config.sampling}: an epoch draws {told}", flush=True)
        return RunLog(config.run_dir, self.epoch, self.epoch * self.steps)

    def save(self, best: bool = False) -> None:
        """Begins to write the checkpoint to go on from; with `best` the weights alone besides. Every rank must ask."""
        self.learner.check_finite()
        tally = self.tally.state_dict(self.ranks)
        if not self.saver:
            return
        model, learner = self.learner.state()
        step = self.epoch * self.steps + self.number
        weights = {
            "model": model,
            "classes": list(self.manifest.classes),
            "epoch": self.epoch,
            "step": step,
            "config": self.config.plain(),
            "manifest": self.manifest.sha256,
            "revision": git_revision(),
        }
        state = {
            "number": self.number,
            "best": self.best,
            "learner": learner,
            "tally": tally,
            "norms": self.norms.state_dict(),
        }
        self.saver.save(step, weights, state, best=best)

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        """Goes back to the state of a checkpoint; UserError if it was trained on other data or with other options."""
        if content["manifest"] != self.manifest.sha256:
            raise UserError(f"{path} was trained on other data than {self.config.data}: give that, or another --name")
        for field, value in self.config.plain().items():
            before = content["config"].get(field)
            if field not in MAY_CHANGE and json.loads(json.dumps(before)) != json.loads(json.dumps(value)):
                if field == "augmentation":  # the same file's name with another content
                    raise UserError(f"{self.config.augment} is not what {path} was trained with: put it back")
                raise UserError(
                    f"{path} was trained with --{field.replace('_', '-')} {before}, not {value}: "
                    "give that, or another --name"
                )
        self.learner.load_state(content["model"], content["learner"])
        self.epoch, self.number, self.best = content["epoch"], content["number"], content["best"]
        self.tally.load_state_dict(content["tally"], self.ranks)
        self.norms.load_state_dict(content["norms"])

    def close(self) -> None:
        self.train_images.close()
        self.val_images.close()
        del self.learner  # and DDP, which uses the process group, before it ends
