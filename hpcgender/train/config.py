"""The options of training, but for those of the data path and of the model. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpcgender.trackers.names import TrackerName
from shard_tools.base.commands import RUNS, default_is
from shard_tools.base.errors import UserError
from shard_tools.base.names import check_name


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Optimizer, learning-rate schedule, regularisation and validation."""

    epochs: int = 50
    """Number of epochs. More of them with --resume extend a run."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Optimizer: SGD with Nesterov momentum, Adam, or AdamW (decoupled weight decay, arXiv 1711.05101)."""
    lr: float = 0.1
    """Peak learning rate, reached after warm-up."""
    lr_batch: int = 0
    """Global batch size that --lr was chosen for, e.g. 256: with another --batch-size, the learning rate is scaled
    linearly (arXiv 1706.02677). 0: --lr is not scaled."""
    backbone_lr_factor: float = 1.0
    """Learning rate of the backbone divided by that of the heads, e.g. 0.1 to fine-tune pretrained weights."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one before it, e.g. 0.75 to fine-tune a vision transformer
    (BEiT, arXiv 2106.08254); heads have the whole one. Layers are timm's groups, blocks of ResNets, or stages of
    others. 1: off."""
    schedule: Literal["step", "cosine", "onecycle"] = "cosine"
    """Learning-rate schedule: step (multiplied by --decay-factor every --decay-every epochs), cosine (down to 0, arXiv
    1608.03983 without restarts), or onecycle (from LR/25 up to LR and down to LR/250000, arXiv 1708.07120)."""
    warmup_epochs: float | Literal["auto"] = "auto"
    """Epochs of warm-up from a small learning rate to LR, e.g. 0.5. 0: off. auto: 1 epoch, with onecycle 30 % of
    --epochs."""
    decay_every: int = 15
    """Epochs between two decays of --schedule step."""
    decay_factor: float = 0.1
    """Factor of the learning rate at each decay of --schedule step."""
    momentum: float = 0.9
    """Nesterov momentum of SGD, or beta1 of Adam and AdamW."""
    beta2: float = 0.999
    """beta2 of Adam and AdamW."""
    weight_decay: float = 1e-4
    """Weight decay of convolutions and linear layers. Biases and normalisation layers have none (arXiv
    1812.01187)."""
    clip_norm: float = 0.0
    """Maximum norm of the gradient, to which a larger one is scaled down. 0: no clipping."""
    ema: float = 0.0
    """Decay per step of the exponential moving average (EMA) of the weights, e.g. 0.999. The EMA weights are validated
    and saved. 0: off."""
    mixup: float = 0.0
    """Mixup alpha, at most 1, e.g. 0.2: images and their labels are mixed in pairs with weights from Beta(alpha, alpha)
    (arXiv 1710.09412). 0: off."""
    val_split: Annotated[str, tyro.conf.arg(metavar="NAME|none")] = "val"
    """Split on which each epoch is validated, and the best one is chosen: of --val-data if given, else of --data. none:
    no validation, and best.pt has the last weights."""
    sync_bn: bool = False
    """Synchronise batch normalisation over all ranks, for few images per GPU. Slower; GPUs only."""

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        if self.warmup_epochs == "auto":
            return 0.3 * self.epochs if self.schedule == "onecycle" else 1.0
        return self.warmup_epochs

    def check(self) -> None:
        """Raises UserError for values out of range."""
        positive = ("epochs", "lr", "backbone_lr_factor", "decay_every", "decay_factor")
        in_range(self, positive, above=0)
        in_range(self, ("lr_batch", "weight_decay", "clip_norm"), least=0)
        in_range(self, ("momentum", "beta2", "ema"), least=0, below=1)
        in_range(self, ("mixup",), least=0, most=1)
        in_range(self, ("layer_decay",), above=0, most=1)
        if not self.val_split:
            raise UserError("--val-split '': give the name of a split, or none")
        if not 0 <= self.warmup <= self.epochs:
            raise UserError(f"--warmup-epochs {self.warmup:g}: give a number from 0 to --epochs {self.epochs}, or auto")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the device computes. May differ with --resume; results then differ by rounding."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the forward pass: fp32, or autocast to bf16 or fp16. auto: bf16 on GPUs from Ampere on, fp16 on
    older ones, fp32 on CPUs."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Memory format of images and weights: on is torch.channels_last. auto: on for GPUs, and on CPUs for ResNets 18 and
    34."""
    accumulate: int = 1
    """Gradient-accumulation steps: each rank computes its part of a batch in this many micro-batches, to save memory.
    --batch-size and the number of optimizer steps stay the same; batch normalisation sees single micro-batches."""
    tf32: bool = True
    """Allow TF32 in float32 convolutions and matrix products on GPUs from Ampere on."""
    compile: bool = False
    """Compile the forward and backward passes of steps with torch.compile: takes minutes at the start, then steps are
    faster."""
    cuda_graphs: bool = False
    """With --compile: start each pass as one CUDA graph, or with several ranks as a few, for batches so small that a
    GPU waits for its host."""
    deterministic: bool = False
    """Use deterministic algorithms only: a run repeated on the same machine has the same bits. Slower on GPUs."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the run is written and when it stops. May differ with --resume."""

    name: str = "train"
    """Name of the run, which is written to RUNS/NAME."""
    runs: Annotated[Path, tyro.conf.arg(metavar="DIR")] = RUNS
    """Directory of all runs."""
    val_data: Annotated[Path | None, default_is("--data", "DIR")] = None
    """Packed data set to validate on, if it is another one than --data."""
    save_initial: bool = False
    """Write the weights before the first step to checkpoints/initial.pt of the run: other runs start from the same with
    --pretrained."""
    resume: bool = False
    """Resume from the newest checkpoint in RUNS/NAME, or start if there is none. Options that are not given are those
    of the run. Given ones may change where data is and how it is computed and saved, and raise --epochs to train
    longer: from there on the learning rate is that of a run of so many epochs."""
    checkpoint_minutes: float = 15.0
    """Minutes between checkpoints within an epoch; one more is written at the end of each epoch. 0: only those."""
    keep: int = 3
    """Number of newest checkpoints to keep, besides best.pt."""
    allow_leaks: bool = False
    """Train on several data sets that share images or subjects across different splits: log, checkpoints and all
    results then say so."""
    track: Annotated[tuple[TrackerName, ...], default_is("none")] = ()
    """Trackers that get the metrics of each epoch besides metrics.jsonl and TensorBoard: mlflow (files in RUNS/mlruns,
    or where MLFLOW_TRACKING_URI says) and wandb (files in RUNS/NAME/wandb; only wandb sync sends them)."""
    stop_after: float = 0.0
    """Time limit in minutes since the job started: the run writes a checkpoint and exits with code 99, which asks to be
    requeued. Not taken over by --resume. 0: no limit."""
    skip_nonfinite: int = 0
    """Consecutive steps with NaN or infinite gradients that are skipped; one more ends the run with an error. 0: none
    (fp16: 100, while its loss scale adapts)."""
    timeout: float = 10.0
    """Minutes that a rank waits for the others, e.g. in an all-reduce, before it fails."""

    def __post_init__(self) -> None:
        check_name("--name", self.name)

    @property
    def run_dir(self) -> Path:
        return self.runs / self.name


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
            rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
            rule = "positive" if rule == "above 0" else rule
            raise UserError(f"--{name.replace('_', '-')} {value} must be {rule}")
