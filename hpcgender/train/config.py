"""What a user may set of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hpcgender.data.augment import PRESETS
from hpcgender.models.registry import check_model
from shard_tools.commands import UserError, unknown
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains a gender classifier on packed shards. Under torchrun, all processes train one model."""

    data: Path = Path("data/shards")
    """Packed data set: the directory of its manifest.json."""
    model: str = "se_resnet50"
    """resnet18|34|50|101|152 or se_resnet18|34|50|101|152."""
    name: str = "train"
    """Name of the run: everything it writes is in RUNS/NAME."""
    runs: Path = Path("runs")
    """Directory of all runs."""
    epochs: int = 50
    """Times that every training image is seen."""
    batch_size: int = 256
    """Images in a batch, all processes together."""
    lr: float = 0.1
    """Highest learning rate."""
    schedule: Literal["step", "cosine"] = "cosine"
    """The learning rate after warm-up: a tenth every 15 epochs, or half a cosine down to zero."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises to LR."""
    momentum: float = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: float = 1e-4
    """Of weights; biases and normalisation have none."""
    image_size: int = 112
    """Height and width of the network's input, pixels."""
    output_stride: Literal[8, 16, 32] = 32
    """Pixels between cells of the last feature map: less gives finer heat maps and costs more."""
    augment: str = "light"
    """How images are varied: none, light."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass: auto is bf16 (fp16 before Ampere) on a GPU and fp32 on a CPU."""
    seed: int = 0
    """Draws the weights, the order and the variation of images."""
    workers: int = 1
    """Threads that decode images, per process."""
    resume: bool = False
    """Go on where the run stopped; start it if there is none."""

    @property
    def run_dir(self) -> Path:
        return self.runs / self.name

    def plain(self) -> dict[str, Any]:
        """The options as JSON and checkpoints have them."""
        return {**asdict(self), "data": str(self.data), "runs": str(self.runs)}

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        check_model(self.model)
        if self.augment not in PRESETS:
            raise unknown("augmentation", self.augment, list(PRESETS))
        for field in ("epochs", "batch_size", "lr", "image_size", "workers"):
            if getattr(self, field) <= 0:
                raise UserError(f"--{field.replace('_', '-')} {getattr(self, field)} must be positive")
        manifest = read_manifest(self.data)
        samples = manifest.split("train").samples
        if samples < self.batch_size:
            raise UserError(f"train in {self.data} has {samples} images, fewer than --batch-size {self.batch_size}")
        if "val" not in manifest.splits:
            raise UserError(f"{self.data} has no validation images: pack it again with --val 0.1")
        if not self.resume and (self.run_dir / "checkpoints").exists():
            raise UserError(f"{self.run_dir} holds a run already: go on with --resume, or give another --name")
