"""The training loop: a run from its start, or from a checkpoint, to its last epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint import git_revision, read_checkpoint, restoring, run_state, save_checkpoint
from hpcgender.commands.train import TrainConfig, check_resumed
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.limit import parts_of
from hpcgender.data.packs import Pack, identity, names_of, read_packs, validation_packs
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks, process_group, redirect_output
from hpcgender.inference.validation import validate
from hpcgender.leaks import leaks_between, subjects_not_compared
from hpcgender.memory import enough_memory
from hpcgender.metrics import GradientNorms, Scores, Tally
from hpcgender.run_directory import BEST, CHECKPOINTS, CONFIG_JSON, CONFIG_TOML, INITIAL, LOCK, resume_command
from hpcgender.stop import StopSignal
from hpcgender.train.class_weights import with_class_weights
from hpcgender.train.data_lines import common_crop, data_lines, validation_line
from hpcgender.train.learner import Learner, NonFiniteError, check_compute
from hpcgender.train.log import EpochRecord, RunLog, epoch_line, parts_line, peak_memory_mb
from hpcgender.train.progress import EpochProgress, StepClock
from hpcgender.train.saver import Saver, latest
from hpcgender.train.schedule import learning_rate
from shard_tools.base.errors import REQUEUE, UserError
from shard_tools.base.files import write_file
from shard_tools.base.lock import PATIENCE, locked
from shard_tools.base.text import plural

TIMED_STEPS = slice(10, 20)
"""Steps that are timed to choose the number of steps between two checkpoints: the first ones load, tune and compile."""


def train(config: TrainConfig) -> int:
    """Trains a model; rank 0 prints a line per epoch and writes the run directory.

    Returns 0 when the run is finished, and REQUEUE when it was stopped before.
    """
    config.check()
    packs = read_packs(config.data)
    timeout = timedelta(minutes=config.timeout)
    with process_group(timeout) as ranks, StopSignal(config.stop_after, timeout) as stop, ExitStack() as exits:
        check_compute(config, ranks)  # before the run's directory is made
        redirect_output(config.run_dir / "logs", ranks.rank)
        if ranks.is_first:
            config.run_dir.mkdir(parents=True, exist_ok=True)
            advice = "cancel that, or give another --name"
            # A lost node's lock is waited for by what resumes; any other training of that name is one too many.
            patience = PATIENCE if config.resume else 0.0
            exits.enter_context(locked(config.run_dir / LOCK, config.run_dir, advice, patience=patience))
            config.check_run()  # again: another training may have ended since
        exits.enter_context(enough_memory(memory_remedy(config)))
        with closing(Trainer(config, packs, ranks, stop)) as trainer:
            if trainer.epoch == config.epochs:
                if ranks.is_first:
                    print(
                        f"{config.run_dir} is finished: {plural(config.epochs, 'epoch')}, {trainer.best_text()}; to "
                        f"train longer: {resume_command(config.run_dir)} --epochs {2 * config.epochs}"
                    )
                return 0
            trainer.train()
    return REQUEUE if stop.reason else 0


def memory_remedy(config: TrainConfig) -> str:
    """What to do if the memory does not suffice; a run that is resumed cannot change its batches."""
    halved = 2 * config.accumulate
    steps = f"--accumulate {halved}" if config.batch_size % halved == 0 else "a larger --accumulate"
    steps += " without --cuda-graphs" if config.cuda_graphs else ""
    return f"give {steps}, with which batches stay the same, or start with a smaller --batch-size"


class Trainer:
    """A training run: its learner, its position, and the metrics of the current epoch."""

    def __init__(self, config: TrainConfig, packs: Sequence[Pack], ranks: Ranks, stop: StopSignal) -> None:
        self.config = config
        self.packs = packs
        self.manifests = [pack.manifest for pack in packs]
        self.ranks = ranks
        self.stop = stop
        self.checkpoints = config.run_dir / CHECKPOINTS
        # Only rank 0 lists the directory: on network storage other nodes may not see the newest file yet.
        found = latest(self.checkpoints) if config.resume and ranks.is_first else None
        path = ranks.broadcast(found[0] if found else None)
        if path and not found:
            found = path, read_checkpoint(path)
        self.validated = validation_packs(packs, config.val_data, config.val_split)
        self.val_data = self.validated[0].manifest if config.val_data else None
        resolved = with_class_weights(config, parts_of(self.manifests, config.limit, config.limit_seed))
        self.learner = Learner(resolved, len(self.manifests[0].classes), ranks, fresh=found is None)
        self.tally = Tally(ranks.device, config.task_weights, binned=True)
        self.norms = GradientNorms(ranks.device)
        self.clock = StepClock()
        self.epoch = 0
        """Finished epochs, including validation."""
        self.epoch_step = 0
        """Finished steps of the current epoch."""
        self.best: float | None = None
        """The best `selection_score` so far."""
        self.extended_from = 0
        """Epochs of the run until now, if more were asked for on resuming; else 0."""
        self.checkpoint_every = 0
        """Steps between two checkpoints within an epoch; 0: none, or not chosen yet."""
        self.timed_from = 0.0
        """When the timed steps began."""
        self.leaks: tuple[str, ...] = ()
        """What the data sets share across splits, if that was allowed."""
        if found:
            self.restore(*found)
        elif config.allow_leaks and ranks.is_first:
            self.leaks = leaks_between(self.manifests, self.val_data, config.val_split)
        self.train_images = TrainingLoader(config, packs, ranks)
        self.val_images = {
            name: EvaluationLoader(
                config,
                pack.manifest,
                config.val_split,
                batch_size=config.batch_size,
                image_size=config.image_size,
                ranks=ranks,
            )
            for name, pack in zip(names_of(self.validated), self.validated, strict=True)
            if config.val_split in pack.manifest.splits
        }
        self.steps_per_epoch = len(self.train_images)
        self.saver: Saver | None = None

    def train(self) -> None:
        """Trains the remaining epochs, until a stop is requested."""
        log = self.open_log() if self.ranks.is_first else None
        if log and self.config.save_initial and not (self.epoch or self.epoch_step):
            save_checkpoint(self.checkpoints / INITIAL, self.weights(self.learner.eval_network.state_dict()))
        try:
            while self.epoch < self.config.epochs and not self.stop.reason:
                self.train_epoch(log)
        except NonFiniteError as error:
            keys = " ".join(map(self.train_images.images.key, error.batch.samples.tolist()))
            raise UserError(
                f"NaN or infinite gradients at step {error.step}, with the images {keys}: resume from the last "
                f"checkpoint with {resume_command(self.config.run_dir)} --skip-nonfinite 10, or start a new run with a "
                "smaller --lr"
            ) from None
        finally:
            try:
                if self.saver:
                    self.saver.close()
            finally:
                if log:  # after the last checkpoint is written
                    log.close(finished=self.epoch == self.config.epochs)
        # A rank that exits with another code than 0 gets the others killed: wait until the last checkpoint is written.
        self.ranks.barrier(timedelta(minutes=self.config.timeout))
        if not self.ranks.is_first:
            return
        if self.stop.reason:
            if self.learner.steps == 0 and self.stop.out_of_time:  # a requeue would repeat this for ever
                raise UserError(f"stopped by {self.stop.reason} before the first step: give it more time")
            print(
                f"stopped by {self.stop.reason} after step {self.epoch_step} of {self.steps_per_epoch} of epoch "
                f"{self.epoch + 1}: resume with {resume_command(self.config.run_dir)}",
                flush=True,
            )
        else:
            print(f"{self.best_text()}, saved in {self.checkpoints / BEST}", flush=True)

    def train_epoch(self, log: RunLog | None) -> None:
        """The rest of an epoch: its remaining steps, validation, log and checkpoint."""
        first, steps = self.epoch_step, self.steps_per_epoch
        waited, bad_images = self.train_images.waited, self.bad_images
        with self.clock:
            self.train_steps()
        if self.stop.reason:
            self.save()
            return
        if steps - first >= TIMED_STEPS.stop:
            self.checkpoint_every = self.checkpoint_interval(self.clock.measured, steps - first)
        waited = self.train_images.waited - waited
        begin = time.perf_counter()
        parts = [self.stop.until_requested(one.epoch(0), len(one), self.ranks) for one in self.val_images.values()]
        filled = self.ranks.device.type == "cuda"
        val, *each = validate(
            self.learner.eval_network,
            parts,
            self.ranks,
            self.learner.precision,
            self.learner.config,
            block=self.config.batch_size // self.ranks.world_size if filled else 0,
        )
        if self.stop.reason:  # during validation, which is repeated on resuming
            self.save()
            return
        sums = torch.tensor([waited, self.clock.measured, self.bad_images - bad_images], dtype=torch.float64)
        wait, total, bad = self.ranks.sum(sums.to(self.ranks.device)).tolist()
        train, memory = self.tally.scores(self.ranks), peak_memory_mb(self.ranks)
        mean_norm, max_norm = self.norms.mean_and_max()
        score = self.selection_score(val)
        improved = not math.isnan(score) and (self.best is None or score > self.best)
        self.best = score if improved else self.best
        improved |= not self.validated
        seconds = self.clock.seconds + time.perf_counter() - begin
        record = EpochRecord(
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            step=(self.epoch + 1) * steps,
            train=train,
            val=val,
            val_of=dict(zip(self.val_images, each, strict=True)) if each else {},
            lr=max(group["lr"] for group in self.learner.optimizer.param_groups),
            gradient_norm=mean_norm,
            gradient_norm_max=max_norm,
            images_per_s=steps * self.config.batch_size / self.clock.seconds,
            data_wait=wait / total,
            bad_images=round(bad),
            peak_memory_mb=memory,
            seconds=seconds,
            eta=seconds * (self.config.epochs - self.epoch - 1),
        )
        self.epoch, self.epoch_step = self.epoch + 1, 0
        self.tally = Tally(self.ranks.device, self.config.task_weights, binned=True)
        self.norms = GradientNorms(self.ranks.device)
        self.clock = StepClock()
        # In this order a kill loses nothing: on resuming, a record without its checkpoint is dropped.
        if log:
            log.write(record)
        self.save(improved)
        if log:
            print(epoch_line(record), flush=True)
            if record.val_of:
                print(parts_line(record), flush=True)
            if bad:
                print(f"{plural(round(bad), 'image')} of this epoch failed to decode: see the ranks' logs", flush=True)

    def train_steps(self) -> None:
        """The remaining steps of an epoch, with checkpoints in between."""
        self.learner.network.train()
        config, first, steps = self.config, self.epoch_step, self.steps_per_epoch
        batches = self.train_images.epoch(self.epoch, first)
        with EpochProgress(self.epoch + 1, config.epochs, steps, config.batch_size, first_step=first) as progress:
            for batch in self.stop.until_requested(batches, steps - first, self.ranks):
                loss = self.learner.step(batch, self.epoch, self.epoch_step, steps, self.tally, self.norms)
                self.epoch_step += 1
                progress.update(self.epoch_step, loss)
                if self.learner.steps == TIMED_STEPS.start:
                    self.timed_from = time.perf_counter()
                elif self.learner.steps == TIMED_STEPS.stop:
                    seconds = time.perf_counter() - self.timed_from
                    self.checkpoint_every = self.checkpoint_interval(seconds, TIMED_STEPS.stop - TIMED_STEPS.start)
                if self.checkpoint_every and self.epoch_step % self.checkpoint_every == 0 and self.epoch_step < steps:
                    self.save()
        self.learner.check_finite()

    def checkpoint_interval(self, seconds: float, steps: int) -> int:
        """Steps between two checkpoints, equal on all ranks, from the seconds that `steps` took on this rank."""
        if not self.config.checkpoint_minutes:
            return 0
        of_all = float(self.ranks.sum(torch.tensor([seconds], device=self.ranks.device)))
        return max(1, round(self.config.checkpoint_minutes * 60 * steps * self.ranks.world_size / of_all))

    def selection_score(self, val: Scores) -> float:
        """The score of an epoch, higher is better: accuracy, or without gender minus the MAE of age."""
        return val.accuracy if "gender" in self.config.tasks else -val.age_mae

    def best_text(self) -> str:
        """What best.pt has."""
        if not self.validated:
            return f"no validation: the last weights, of epoch {self.epoch}"
        if self.best is None:
            return "best unknown"
        if "gender" in self.config.tasks:
            return f"best validation accuracy {self.best:.2%}"
        return f"best validation age MAE {-self.best:.2f}"

    @property
    def bad_images(self) -> int:
        """Number of images that did not decode on this rank so far; an image counts each time."""
        return self.train_images.left_out + sum(one.left_out for one in self.val_images.values())

    def open_log(self) -> RunLog:
        """Makes the run directory, prints what is trained, and opens the log."""
        config = self.config
        self.saver = Saver(self.checkpoints, config.keep)
        content = {**config.plain(), **self.data_facts(), "class_weights_used": self.learner.config.class_weights}
        write_file(config.run_dir / CONFIG_JSON, (json.dumps(content, indent=1) + "\n").encode())
        write_file(config.run_dir / CONFIG_TOML, config.toml().encode())
        images = sum(part.images for part in self.train_images.parts)
        validated = sum(len(one.images) for one in self.val_images.values())
        print(
            f"{'resuming' if self.epoch or self.epoch_step else 'training'} {config.run_dir}: {config.model} at "
            f"{config.image_size} px, {plural(images, 'image')}, {f'{validated:,} for' if validated else 'no'} "
            f"validation, batch {config.batch_size} on {self.ranks.world_size} x {self.ranks.device.type}, "
            f"{self.learner.precision.name}, from epoch {self.epoch + 1}"
            + (f", after step {self.epoch_step} of {self.steps_per_epoch}" if self.epoch_step else ""),
            flush=True,
        )
        for line in self.remarks():
            print(line, flush=True)
        if self.learner.pretrained:
            print(self.learner.pretrained, flush=True)
        step = self.epoch * self.steps_per_epoch
        return RunLog(config.run_dir, self.epoch, step, track=config.track, options=config.plain())

    def remarks(self) -> Iterator[str]:
        """What a person should know of the options."""
        config, steps = self.config, self.steps_per_epoch
        yield from data_lines(config, self.packs, self.train_images)
        if config.class_weights == "balanced":
            used = zip(self.learner.config.class_weights, self.manifests[0].classes, strict=True)
            yield f"class weights: {', '.join(f'{weight:.4f} {name}' for weight, name in used)}"
        if line := validation_line(config):
            yield line
        yield from (f"WARNING: --allow-leaks: {line}" for line in self.leaks)
        yield from subjects_not_compared([*self.manifests, *([self.val_data] if self.val_data else [])])
        if self.extended_from:
            lr = learning_rate(config, self.epoch * steps + self.epoch_step, steps)
            yield (
                f"extended from {self.extended_from} to {config.epochs} epochs: from here on the learning rate is that "
                f"of a run of {config.epochs} epochs, now {lr:.1e}"
            )
        if config.stem == "small":
            yield "--stem small costs several times the computation and memory of --stem standard: see hpcgender models"
        if (config.map_side(config.image_size) or self.learner.network.side) == 1:
            yield (
                f"heat maps of {config.model} at {config.image_size} px have a single cell: give {config.finer_maps} "
                "if you want to see where it looks"
            )

    def save(self, best: bool = False) -> None:
        """Starts to write a checkpoint, and with `best` also best.pt. Collective: every rank must call it."""
        self.learner.check_finite()
        tally = self.tally.state_dict(self.ranks)
        if not self.saver:
            return
        model, learner = self.learner.state()
        weights = self.weights(model)
        state = {
            "number": self.epoch_step,
            "seconds": self.clock.seconds,
            "best": self.best,
            "learner": learner,
            "tally": tally,
            "norms": self.norms.state_dict(),
        }
        self.saver.save(weights["step"], weights, state, best=best)

    def weights(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """What a trained model needs, of the state dict of its network."""
        return {
            "model": model,
            "classes": list(self.manifests[0].classes),
            "epoch": self.epoch,
            "step": self.epoch * self.steps_per_epoch + self.epoch_step,
            "config": self.config.plain(),
            **self.data_facts(),
            "crop": asdict(crop) if (crop := common_crop(self.manifests)) else None,
            "revision": git_revision(),
        }

    def data_facts(self) -> dict[str, Any]:
        """What identifies the data, and what it shares across splits."""
        return {
            "manifest": identity(self.packs),
            "val_manifest": self.val_data.sha256 if self.val_data else "",
            "leaks": list(self.leaks),
        }

    def restore(self, path: Path, content: dict[str, Any]) -> None:
        """Restores the state of a checkpoint; UserError if it is none, or of other data or other options."""
        state = run_state(content, path)
        begun = {**state.config, "manifest": state.manifest, "val_manifest": state.val_manifest}
        check_resumed(self.config, begun, identity(self.packs), self.data_facts()["val_manifest"], str(path))
        self.leaks = state.leaks
        self.extended_from = begun["epochs"] if begun["epochs"] < self.config.epochs else 0
        self.epoch, self.epoch_step, self.best = state.epoch, state.number, state.best
        self.clock = StepClock(state.seconds)
        with restoring(path):
            self.learner.load_state(state.model, state.learner)
            self.tally.load_state_dict(state.tally, self.ranks)
            self.norms.load_state_dict(state.norms)

    def close(self) -> None:
        self.train_images.close()
        for images in self.val_images.values():
            images.close()
        del self.learner  # DDP must be destroyed before its process group
