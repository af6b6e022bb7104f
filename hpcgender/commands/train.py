"""`hpcgender train`: its options, and what is true of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from hpcgender.commands.setup import LAYERS, SetupConfig
from hpcgender.data.augmentation import read_augmentation
from hpcgender.data.config import BatchConfig, ReadConfig
from hpcgender.log_lines import step_under_way
from hpcgender.models.config import ModelConfig
from shard_tools.base.commands import Command, Made, Shown
from shard_tools.base.errors import UserError
from shard_tools.base.files import last_record, tail
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """How the weights change, step by step."""

    epochs: int = 50
    """Times that every training image is seen."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """SGD with Nesterov momentum, Adam, or Adam with decoupled weight decay."""
    lr: float = 0.1
    """Highest learning rate."""
    lr_batch: int = 0
    """The batch size that --lr is meant for: with another --batch-size, --lr is scaled in proportion. 0: --lr is taken
    as it is."""
    backbone_lr_factor: float = 1.0
    """The learning rate of all before the heads, as a multiple of the heads'."""
    schedule: Literal["step", "cosine", "onecycle"] = "cosine"
    """The learning rate after warm-up: times --decay-factor every --decay-every epochs; or half a cosine down to zero;
    or one cycle, half a cosine up from a 25th and half a cosine down to almost zero."""
    warmup_epochs: float | Literal["auto"] = "auto"
    """Epochs in which the learning rate rises to LR: auto is 1, and of onecycle 30 % of the epochs."""
    decay_every: int = 15
    """Epochs between the falls of --schedule step."""
    decay_factor: float = 0.1
    """What the learning rate is multiplied by at each fall."""
    momentum: float = 0.9
    """Nesterov momentum of SGD; the first beta of Adam and AdamW."""
    beta2: float = 0.999
    """The second beta of Adam and AdamW."""
    weight_decay: float = 1e-4
    """Of weights; biases and normalisation have none."""
    clip_norm: float = 0.0
    """Gradients whose norm is greater are scaled down to it. 0: never."""
    ema: float = 0.0
    """Validate and keep an average of the weights, of which this part stays at each step, such as 0.999. 0: do not."""
    mixup: float = 0.0
    """Blend each image and its labels with another's, in parts drawn from Beta(MIXUP, MIXUP), as of 0.2. 0: do not."""
    sync_bn: bool = False
    """Normalise over the batch of all processes, not over each one's part: for small parts. Slower."""

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        if self.warmup_epochs == "auto":
            return 0.3 * self.epochs if self.schedule == "onecycle" else 1.0
        return self.warmup_epochs

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        positive = ("epochs", "lr", "backbone_lr_factor", "decay_every", "decay_factor")
        in_range(self, positive, above=0)
        in_range(self, ("lr_batch", "weight_decay", "clip_norm"), least=0)
        in_range(self, ("momentum", "beta2", "ema"), least=0, below=1)
        in_range(self, ("mixup",), least=0, most=1)
        if not 0 <= self.warmup <= self.epochs:
            raise UserError(f"--warmup-epochs {self.warmup:g}: give a number from 0 to --epochs {self.epochs}, or auto")


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How the machine computes. May change when a run goes on: results then differ by rounding."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass: auto is bf16 (fp16 before Ampere) on a GPU and fp32 on a CPU."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Keep the channels of a pixel together in memory: auto chooses for the device and the network."""
    accumulate: int = 1
    """Parts that each process cuts its images of a batch into, one after the other, to need less memory. Batch
    normalisation, and means over those whose label is known, see each part alone; otherwise the step is the same."""
    tf32: bool = True
    """Let GPUs from Ampere on round the factors of float32 products to TF32."""
    compile: bool = False
    """Compile the network with torch.compile first: minutes that long runs regain."""
    deterministic: bool = False
    """Use algorithms that give the same bits each time, even where they are slower."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the run is kept, and when it stops. May change when a run goes on."""

    name: str = "train"
    """Name of the run: everything it writes is in RUNS/NAME."""
    runs: Path = Path("runs")
    """Directory of all runs."""
    resume: bool = False
    """Go on where the run stopped; start it if there is none."""
    checkpoint_minutes: float = 15.0
    """Write a checkpoint as often as that, and at the end of each epoch. 0: only there."""
    keep: int = 3
    """Checkpoints to keep, the last ones; the best one is kept besides."""
    stop_after: float = 0.0
    """Minutes after which to write a checkpoint and exit with code 99, to be started again. 0: never."""
    skip_nonfinite: int = 0
    """Steps in a row that are left out because their loss is not finite; one more stops the run."""
    timeout: float = 10.0
    """Minutes that a process waits for the others before it gives up."""

    @property
    def run_dir(self) -> Path:
        return self.runs / self.name


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SetupConfig, RunConfig, LearningConfig, ModelConfig, BatchConfig, SpeedConfig):
    """Trains a classifier of gender, age or both on packed shards. Under torchrun, all processes train one model."""

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, scaled to the batch if so asked (Goyal et al., arXiv 1706.02677)."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr

    def plain(self) -> dict[str, Any]:
        """The options as JSON and checkpoints have them."""
        values = {name: value for name, value in asdict(self).items() if name not in LAYERS}
        values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        return {**values, "augmentation": asdict(read_augmentation(self.augment))}

    def check(self) -> None:
        LearningConfig.check(self)
        ModelConfig.check(self)  # and what follows it here: BatchConfig and ReadConfig
        in_range(self, ("timeout",), above=0)
        in_range(self, ("accumulate", "keep"), least=1)
        in_range(self, ("checkpoint_minutes", "stop_after", "skip_nonfinite"), least=0)
        if self.batch_size % self.accumulate:
            raise UserError(f"--batch-size {self.batch_size} cannot be cut into --accumulate {self.accumulate} parts")
        read_augmentation(self.augment)
        manifest = read_manifest(self.data)
        counts = list(manifest.split("train").counts.values())
        samples = manifest.split("train").samples
        if self.sampling != "none":
            from hpcgender.data.sampling import class_targets  # and numpy, for which a submission need not wait

            samples = sum(class_targets(counts, self.sampling, self.class_weights))
        if samples < self.batch_size and self.last_batch == "drop":
            raise UserError(f"train in {self.data} has {samples} images, fewer than --batch-size {self.batch_size}")
        if "val" not in manifest.splits:
            raise UserError(f"{self.data} has no validation images: pack it again with --val 0.1")
        if (self.run_dir / "checkpoints").exists():
            if not self.resume:
                raise UserError(f"{self.run_dir} holds a run already: go on with --resume, or give another --name")
        else:
            self.check_pretrained()


MAY_CHANGE = frozenset(field.name for config in (ReadConfig, SpeedConfig, RunConfig) for field in fields(config))
"""What a resumed run may set otherwise than it began: where data and results are, and how they are computed."""


def in_range(
    config: object,
    names: tuple[str, ...],
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raises UserError unless the options of those names are numbers in the range."""
    for name in names:
        value = getattr(config, name)
        if not (least <= value <= most and above < value < below):
            bounds = {"at least": least, "above": above, "below": below, "at most": most}
            said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
            said = "positive" if said == "above 0" else said
            raise UserError(f"--{name.replace('_', '-')} {value} must be {said}")


class Train(Command[TrainConfig]):
    """Training a model; interrupted, it resumes from the newest checkpoint of its run directory."""

    def results(self, options: TrainConfig) -> Path:
        return options.run_dir

    def data(self, options: TrainConfig) -> Path:
        return options.data

    def progress(self, options: TrainConfig) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        checkpoints = (options.run_dir / "checkpoints").glob("step-????????.pt")
        return max((int(path.stem.partition("-")[2]) for path in checkpoints), default=0)

    def shown(self, results: Path, log: str, running: bool, now: float) -> Shown:
        """From the last record of metrics.jsonl and, while it runs, from the last step in its log."""
        metrics = results / "metrics.jsonl"
        shown = Shown()
        if record := last_record(metrics):
            val, eta = record.get("val") or {}, record.get("eta")
            if running and eta is not None:
                eta = max(0.0, eta - (now - metrics.stat().st_mtime))
            shown = Shown(
                epochs_done=record.get("epoch"),
                epochs=record.get("epochs"),
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
        return Made(data=options.data, checkpoint=options.run_dir / "checkpoints" / "best.pt")

    def following(self, made: Made) -> tuple[str, ...] | None:
        """On the data set that the command before has packed, in a run named after it."""
        if not made.data or made.checkpoint:
            return None
        return ("train", "--data", str(made.data), "--name", made.data.resolve().name, "--resume")


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
