"""A trained model that predicts images: what `load` returns and `hpcgender predict` uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from hpcgender.checkpoint import load_trained
from hpcgender.checkpoint_file import checkpoint_file, digest, kept_temperature
from hpcgender.commands.predict import ONNX, WantedCrop, check_model_file
from hpcgender.data.config import BACKEND, Backend
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.distributed import Ranks, select_device
from hpcgender.evaluate.decision import Decision, DecisionConfig
from hpcgender.inference.config import WantedPrecision
from hpcgender.inference.engine import compute, threads_for
from hpcgender.memory import enough_memory
from hpcgender.precision import for_inference
from hpcgender.predict.batches import Batch, batches
from hpcgender.predict.images import Content, Named, Readable, in_memory
from hpcgender.predict.networks import Results, TorchNetwork
from hpcgender.predict.onnx_network import CPU, OnnxNetwork
from shard_tools.align.detector import detector_name
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import UserError, unknown
from shard_tools.base.options import expand
from shard_tools.manifest import CLASSES


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of an image. Texts are empty and numbers nan where there is nothing to say."""

    image: str
    """The path of its file, or its number among those given."""
    label: str = ""
    """female or male."""
    confidence: float = math.nan
    """Probability of that label, calibrated if the model is."""
    probability: float = math.nan
    """The same, of male."""
    logit: float = math.nan
    """Log-odds of male as the network outputs them, without calibration."""
    age: float = math.nan
    """Years."""
    precision: str = ""
    """The precision of the forward pass: fp32, tf32, bf16 or fp16."""
    note: str = ""
    """A remark: that the image had to be encoded anew and why, or that it has several faces."""
    error: str = ""
    """Why the image could not be used, e.g. because no face was found in it."""
    faces: int | None = None
    """Faces found in the image; None where none was looked for: the model has no crop, or the image is one."""
    landmarks: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    """Eyes, nose and corners of the mouth of the cropped face, (x, y) in pixels of the upright image; shape (5, 2)."""
    heat_map: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """If asked for, evidence for male (positive) and for female (negative), log-odds, (cells down, cells across)."""
    face: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    """With the heat map: the pixels that the network saw, (size, size, 3)."""


class Model:
    """A trained model on this machine's GPU, or on its CPU. `crop` is the recipe by which it crops faces, or None."""

    def __init__(
        self,
        network: TorchNetwork | OnnxNetwork,
        decision: Decision,
        crop: Recipe | None,
        ranks: Ranks,
        backend: Backend,
        batch_size: int,
    ) -> None:
        self.network, self.decision, self.crop, self.ranks = network, decision, crop, ranks
        self.backend, self.batch_size = backend, batch_size

    @property
    def words(self) -> str:
        """How it sees images and what it makes of them, one line for people."""
        if self.crop:
            seen = f"faces are cropped as in training, to {self.crop.frame}"
        elif self.network.crop:
            seen = f"images are taken for {self.network.crop.frame}"
        else:
            seen = "images are seen as they are: how those of the training were cropped is not known"
        return f"{seen}; {self.decision.words}" if self.network.has_gender else seen

    def predict(self, images: Iterable[Content | str], *, heat_maps: bool = False) -> list[Prediction]:
        """A prediction for each image, in their order.

        An image is a path, the bytes of a file, a Pillow image, or an array uint8 (height, width, 3) of RGB. With a
        `crop` the face in it counts, else its central square. One that cannot be used has an `error`. Raises UserError
        for one image that is not in a list, if memory is short, or if heat maps are asked for and there are none.
        """
        return list(self.predictions(in_memory(images), heat_maps=heat_maps))

    def predictions(self, images: Iterable[Named], *, heat_maps: bool = False) -> Iterator[Prediction]:
        """The same, one after the other, while the next ones are read, decoded and computed."""
        size, device = self.batch_size, self.ranks.device
        threads = decoder_threads(None, self.ranks)
        decoder = create_decoder(self.backend, size, self.network.image_size, device, None, threads)

        def work(batch: Batch) -> Results:
            return self.network.results(batch.pixels, maps=heat_maps) if batch.places else Results()

        with enough_memory("give a smaller batch size"), closing(batches(images, decoder, size, self.crop)) as loaded:
            for batch, results in compute(loaded, work, threads=threads_for(device)):
                places = {place: number for number, place in enumerate(batch.places)}
                for place, (image, found) in enumerate(zip(batch.images, batch.found, strict=True)):
                    if place in places:
                        yield self.prediction(image.name, found, results, places[place])
                    else:
                        yield Prediction(image=image.name, error=found.error)

    def prediction(self, name: str, found: Readable, results: Results, number: int) -> Prediction:
        """What the results say of their image of that number."""
        label, confidence, probability, logit = "", math.nan, math.nan, math.nan
        if results.logit is not None:
            logit = float(results.logit[number])
            probability = self.decision.probability(logit)
            male = logit > self.decision.threshold
            label, confidence = CLASSES[male], probability if male else 1 - probability
        return Prediction(
            image=name,
            label=label,
            confidence=confidence,
            probability=probability,
            logit=logit,
            age=math.nan if results.age is None else float(results.age[number]),
            precision=self.network.precision.name,
            note=found.note,
            faces=found.faces,
            landmarks=found.landmarks,
            heat_map=None if results.maps is None else results.maps[number],
            face=None if results.faces is None else results.faces[number],
        )


def model_digest(path: Path) -> str:
    """The checksum that identifies a checkpoint, or the one that a file was exported from; UserError if it has none."""
    return OnnxNetwork(path).digest if path.suffix == ONNX else digest(path)


def load(
    checkpoint: str | Path,
    *,
    evaluation: str | Path = "",
    threshold: str | float = "",
    backend: Backend = BACKEND,
    precision: WantedPrecision = "run",
    batch_size: int = 64,
    crop: WantedCrop = "run",
) -> Model:
    """The model of a checkpoint: a file, also one of `hpcgender export --format onnx`, or a run by its directory or its
    name, for its best one.

    The other arguments are as the options of `hpcgender predict`. Raises UserError for values that those have not, for
    a checkpoint that is missing or damaged, for an evaluation that is not its own, and if faces are to be cropped and
    the extra `align` is missing.
    """
    for name, value, kind in (
        ("backend", backend, Backend),
        ("precision", precision, WantedPrecision),
        ("crop", crop, WantedCrop),
    ):
        if value not in get_args(kind):
            raise unknown(name, str(value), get_args(kind))
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size} must be positive: give a number of images, such as 64")
    path = checkpoint_file(expand(Path(checkpoint)))
    check_model_file(path, precision)
    wanted = DecisionConfig(evaluation=expand(str(evaluation)), threshold=str(threshold))
    network: TorchNetwork | OnnxNetwork
    if path.suffix == ONNX:
        device = CPU
        network = OnnxNetwork(path)
        own = (network.threshold, network.threshold_from)
        decision = wanted.decision(path, network.digest, network.temperature, *own)
    else:
        decision = wanted.decision(path, digest(path), kept_temperature(path))
        device = select_device()
        trained = load_trained(path, device)
        network = TorchNetwork(trained, for_inference(precision, trained.about["config"], device))
    recipe = network.crop if crop == "run" else None
    if recipe:
        detector_name()
    return Model(network, decision, recipe, Ranks(0, 1, device), backend, batch_size)
