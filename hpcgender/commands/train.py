"""`hpcgender train`: its options, and what is true of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig, ReadConfig
from hpcgender.data.limit import parts_of
from hpcgender.data.packs import identity, only_one, read_packs, validation_packs
from hpcgender.leaks import check_leaks
from hpcgender.log_lines import step_under_way
from hpcgender.models.config import ModelConfig
from hpcgender.option_layers import LAYERS, SetupConfig, read_options, spelled_out
from hpcgender.run_directory import (
    BEST,
    CHECKPOINTS,
    CONFIG_JSON,
    CONFIG_TOML,
    INITIAL,
    LOCK,
    METRICS,
    holds_run,
    newest_first,
    resume_command,
    steps_done,
)
from hpcgender.trackers.names import check_installed
from hpcgender.train.config import ComputeConfig, OptimizationConfig, RunConfig, in_range
from hpcgender.trainable import check_trainable
from shard_tools.base.commands import Command, Made, Shown
from shard_tools.base.documents import read_json, read_toml
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory, last_record, tail
from shard_tools.base.names import safe_name
from shard_tools.base.text import plural
from shard_tools.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SetupConfig, RunConfig, BatchConfig, ModelConfig, OptimizationConfig, ComputeConfig):
    """Train a classifier of gender, age or both on packed shards. Under torchrun or python -m hpcgender.launch, all
    processes train one model with DDP."""

    @property
    def peak_lr(self) -> float:
        """The peak learning rate, scaled to the batch size if `lr_batch` is set (Goyal et al., arXiv 1706.02677)."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr

    def plain(self) -> dict[str, Any]:
        """The options as config.json and checkpoints store them."""
        values = {name: value for name, value in asdict(self).items() if name not in LAYERS}
        values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        return {**values, "augmentation": asdict(read_augmentation(self.augment))}

    def begun_with(self) -> dict[str, Any]:
        if not (self.resume and holds_run(self.run_dir)):
            return {}
        stored = self.run_dir / CONFIG_TOML
        try:
            values = read_options(type(self), read_toml(stored))
        except UserError as error:
            again = f"hpcgender train OPTIONS --print-config > {stored}"
            raise UserError(f"{error}; it has the options of the run to resume: restore it, e.g. {again}") from None
        values.pop("stop_after", None)  # of one start
        return {**values, "name": self.name, "runs": self.runs}

    def check(self) -> None:
        """Raises UserError for what can be known before work begins."""
        OptimizationConfig.check(self)
        ModelConfig.check(self)
        BatchConfig.check(self)
        in_range(self, ("timeout",), above=0)
        in_range(self, ("accumulate", "keep"), least=1)
        in_range(self, ("checkpoint_minutes", "stop_after", "skip_nonfinite"), least=0)
        if self.batch_size % self.accumulate:
            raise UserError(f"--batch-size {self.batch_size} does not divide by --accumulate {self.accumulate}")
        if self.cuda_graphs and not self.compile:
            raise UserError("--cuda-graphs needs --compile")
        if self.cuda_graphs and self.accumulate > 1:
            raise UserError(
                "--cuda-graphs needs --accumulate 1: graphs overwrite the gradients of the micro-batch before"
            )
        if self.compile and self.sync_bn:
            raise UserError("--compile needs --no-sync-bn: ranks cannot meet within a compiled pass")
        read_augmentation(self.augment)
        check_installed(self.track)
        self.check_run()
        resumes = holds_run(self.run_dir)
        try:
            packs = read_packs(self.data)
        except UserError as error:
            if resumes or not self.resume:
                raise
            raise UserError(f"{self.run_dir} holds no run to resume, and cannot start: {error}") from None
        validated = [pack.manifest for pack in validation_packs(packs, self.val_data, self.val_split)]
        if resumes and (self.run_dir / CONFIG_JSON).exists():
            again = "remove it, and give all options of the run"
            begun = read_json(self.run_dir / CONFIG_JSON, again, again)
            of_val = validated[0].sha256 if self.val_data else ""
            check_resumed(self, begun, identity(packs), of_val, str(self.run_dir))
            lost = steps_done(self.run_dir) and not (self.run_dir / CHECKPOINTS / INITIAL).exists()
            if self.save_initial and not begun.get("save_initial") and lost:
                raise UserError(
                    f"--save-initial: {self.run_dir} has begun, and its first weights are gone: leave it out, or give "
                    "another --name"
                )
        self.check_image_size(self.image_size)
        if not resumes:
            self.check_pretrained()
        manifests = [pack.manifest for pack in packs]
        check_trainable(manifests, self.tasks, validated, self.val_split)
        self.check_batches(manifests)
        if not resumes and not self.allow_leaks:
            check_leaks(manifests, validated[0] if self.val_data else None, self.val_split)

    def check_run(self) -> None:
        """Raises UserError if the run directory holds a run that these options do not resume, or cannot be written."""
        check_directory(self.run_dir, "--runs")
        if not holds_run(self.run_dir):
            return
        if not self.resume:
            raise UserError(
                f"{self.run_dir} holds a run already: resume it with {resume_command(self.run_dir)}, or give another "
                "--name"
            )
        checkpoints = self.run_dir / CHECKPOINTS
        if not newest_first(checkpoints):
            raise UserError(
                f"{checkpoints} holds {BEST}, but no checkpoint to resume from: give another --name, and --pretrained "
                f"{checkpoints / BEST} to start from its weights"
            )

    def check_batches(self, manifests: Sequence[Manifest]) -> None:
        """Raises UserError unless an epoch has a batch."""
        parts = parts_of(manifests, self.limit, self.limit_seed)
        samples = sum(part.images for part in parts)
        if self.sampling != "none":
            from hpcgender.data.sampling import class_targets  # imports numpy, which would slow a submission

            targets = (
                class_targets(list(part.counts.values()), self.sampling, self.sampling_weights) for part in parts
            )
            samples = sum(map(sum, targets))
        elif self.limit and "gender" in self.tasks:
            counts = [sum(part.counts[name] for part in parts) for name in manifests[0].classes]
            if not all(counts):
                raise UserError(
                    f"--limit {self.limit} leaves {counts} images of the classes: give more, or another --limit-seed"
                )
        if samples < self.batch_size and self.last_batch == "drop":
            left = f" after --limit {self.limit} --limit-seed {self.limit_seed}" if self.limit else ""
            raise UserError(
                f"train in {self.data} has {plural(samples, 'image')}{left}, fewer than --batch-size {self.batch_size}"
            )


MAY_CHANGE = frozenset(field.name for config in (ReadConfig, ComputeConfig, RunConfig) for field in fields(config))
"""Options that may differ when a run is resumed: where data and results are, and how they are computed."""


def check_resumed(config: TrainConfig, begun: Mapping[str, Any], manifest: str, val_manifest: str, where: str) -> None:
    """Raises UserError, naming `where` it is known from, unless the options may resume a run.

    `begun` are the options that it was trained with, as config.json holds them, and `manifest` and `val_manifest`, what
    identifies its data; those given are of the data now. --epochs may grow.
    """
    command = resume_command(config.run_dir)
    if begun.get("manifest") != manifest:
        raise UserError(
            f"{where} was trained on other data{' or weights' * (',' in manifest)} than is in {config.data} now, which "
            f"it read from {begun.get('data')}: give that as --data, or another --name"
        )
    if (begun.get("val_manifest") or "") != val_manifest:
        before = begun.get("val_data") or begun.get("data")
        raise UserError(
            f"{where} was validated on other data than is in {config.val_data or config.data} now, which it read from "
            f"{before}: give that as --val-data, or another --name"
        )
    for field, value in config.plain().items():
        before, now = begun.get(field), json.loads(json.dumps(value))
        if field in MAY_CHANGE or json.loads(json.dumps(before)) == now:
            continue
        if field == "augmentation":  # the file has the same name and other content
            raise UserError(f"{config.augment} has changed since {where} was trained: restore it")
        if field == "epochs" and isinstance(before, int):
            if before < now:
                continue
            raise UserError(
                f"{where} is a run of {before} epochs, and --epochs {now} is fewer: resume it with {command}, or give "
                "more epochs"
            )
        raise UserError(
            f"{where} was trained with {spelled(field, before)}, not {spelled(field, now, option=False)}: resume it "
            f"with {command}, or give another --name"
        )


def spelled(field: str, value: Any, option: bool = True) -> str:
    """An option's value as a command line has it, after the option's name if asked."""
    flag = f"--{field.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    words = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"{flag} {words or repr('')}" if option else words or "nothing"


def numbers(written: object) -> dict[str, float]:
    """The finite numbers among the values of a JSON object, by their names; none if it is no object."""
    items = written.items() if isinstance(written, dict) else ()
    return {name: value for name, value in items if isinstance(value, int | float) and math.isfinite(value)}


class Train(Command[TrainConfig]):
    """Training a model; interrupted, it resumes from the newest checkpoint of its run directory."""

    def results(self, options: TrainConfig) -> Path:
        return options.run_dir

    def data(self, options: TrainConfig) -> Path | None:
        return only_one(options.data)

    def progress(self, options: TrainConfig) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return steps_done(options.run_dir)

    def settled(self, options: TrainConfig, words: Sequence[str]) -> tuple[str, ...]:
        return (self.name, *spelled_out(options)) if options.config else tuple(words)

    def check_ranks(self, options: TrainConfig, ranks: int) -> None:
        if ranks > 1:
            from hpcgender.data.order import check_world_size  # imports numpy, which would slow other commands

            check_world_size(ranks, options.batch_size)

    def check_results(self, options: TrainConfig) -> None:
        options.check_run()

    def done(self, options: TrainConfig) -> str:
        last = last_record(options.run_dir / METRICS)
        if not options.resume or last is None or last.get("epoch") != options.epochs:
            return ""
        epochs = plural(options.epochs, "epoch")
        return f"{options.run_dir} is finished: it has its {epochs}; more --epochs would extend it"

    def shown(self, results: Path, log: str, running: bool, now: float) -> Shown:
        """From the last record of metrics.jsonl and, while it runs, from the last step in its log."""
        metrics = results / METRICS
        shown = Shown()
        if written := last_record(metrics):
            record, val = numbers(written), numbers(written.get("val"))
            eta = record.get("eta")
            if running and eta is not None:
                # It may have waited in a queue since that epoch: its lock is written as it goes on.
                times = [path.stat().st_mtime for path in (metrics, results / LOCK) if path.exists()]
                eta = max(0.0, eta - (now - max(times)))
            shown = Shown(
                epochs_done=record.get("epoch"),
                epochs=int(record["epochs"]) if "epochs" in record else None,
                accuracy=val.get("accuracy"),
                age_mae=val.get("age_mae"),
                images_per_s=record.get("images_per_s"),
                eta=eta,
            )
        if running and log and (step := step_under_way(tail(Path(log)))):
            done = step.epoch - 1 + step.step / step.steps
            shown = replace(shown, epochs_done=done, epochs=step.epochs, images_per_s=step.images_per_s)
        return shown

    def made(self, options: TrainConfig) -> Made:
        backend = "" if options.backend == ReadConfig.backend else options.backend
        best = options.run_dir / CHECKPOINTS / BEST
        final = bool(self.done(options))
        return Made(data=only_one(options.data), checkpoint=best, tasks=options.tasks, backend=backend, final=final)

    def following(self, made: Made) -> tuple[str, ...] | None:
        """On the data set that the command before has packed, in a run named after it."""
        if not made.data or made.checkpoint:
            return None
        return ("train", "--data", str(made.data), "--name", safe_name(made.data.resolve().name), "--resume")


COMMANDS = (
    Train(
        name="train",
        summary="train a model on packed shards",
        options=TrainConfig,
        work="hpcgender.train.loop:train",
        distributed=True,
        resume="resume",
    ),
)
