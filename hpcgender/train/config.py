"""What a user may set of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hpcgender.data.augment import read_augmentation
from hpcgender.data.config import BatchConfig
from hpcgender.data.sampling import class_targets
from hpcgender.models.registry import check_model
from shard_tools.commands import UserError
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BatchConfig):
    """Trains a gender classifier on packed shards. Under torchrun, all processes train one model."""

    model: str = "se_resnet50"
    """resnet18|34|50|101|152 or se_resnet18|34|50|101|152."""
    name: str = "train"
    """Name of the run: everything it writes is in RUNS/NAME."""
    runs: Path = Path("runs")
    """Directory of all runs."""
    epochs: int = 50
    """Times that every training image is seen."""
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
    output_stride: Literal[8, 16, 32] = 32
    """Pixels between cells of the last feature map: less gives finer heat maps and costs more."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass: auto is bf16 (fp16 before Ampere) on a GPU and fp32 on a CPU."""
    resume: bool = False
    """Go on where the run stopped; start it if there is none."""

    @property
    def run_dir(self) -> Path:
        return self.runs / self.name

    def plain(self) -> dict[str, Any]:
        """The options as JSON and checkpoints have them."""
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {**values, "augmentation": asdict(read_augmentation(self.augment))}

    def check(self) -> None:
        """Raises UserError for what cannot work, before anything is started or written."""
        check_model(self.model)
        super().check()
        for field in ("epochs", "lr"):
            if getattr(self, field) <= 0:
                raise UserError(f"--{field} {getattr(self, field)} must be positive")
        manifest = read_manifest(self.data)
        counts = list(manifest.split("train").counts.values())
        samples = manifest.split("train").samples
        if self.sampling != "none":
            samples = sum(class_targets(counts, self.sampling, self.class_weights))
        if samples < self.batch_size and self.last_batch == "drop":
            raise UserError(f"train in {self.data} has {samples} images, fewer than --batch-size {self.batch_size}")
        if "val" not in manifest.splits:
            raise UserError(f"{self.data} has no validation images: pack it again with --val 0.1")
        if not self.resume and (self.run_dir / "checkpoints").exists():
            raise UserError(f"{self.run_dir} holds a run already: go on with --resume, or give another --name")
