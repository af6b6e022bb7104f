"""A trained model that predicts images: what `load` returns and `hpcgender predict` uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.checkpoint import load_trained
from hpcgender.checkpoint_file import check_checkpoint, checkpoint_file, digest
from hpcgender.data.config import BACKEND, Backend
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.distributed import Ranks, select_device
from hpcgender.evaluate.decision import Decision, DecisionConfig
from hpcgender.inference.config import WantedPrecision
from hpcgender.inference.engine import compute
from hpcgender.memory import enough_memory
from hpcgender.precision import for_inference
from hpcgender.predict.batches import Batch, batches
from hpcgender.predict.images import Content, Named, in_memory
from hpcgender.predict.networks import Results, TorchNetwork
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
    """Why the image had to be encoded anew before decoding."""
    error: str = ""
    """Why the image could not be used."""
    heat_map: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """If asked for, evidence for male (positive) and for female (negative), log-odds, (cells down, cells across)."""
    face: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    """With the heat map: the pixels that the network saw, (size, size, 3)."""


class Model:
    """A trained model on this machine's GPU, or on its CPU."""

    def __init__(
        self, network: TorchNetwork, decision: Decision, ranks: Ranks, backend: Backend, batch_size: int
    ) -> None:
        self.network, self.decision, self.ranks = network, decision, ranks
        self.backend, self.batch_size = backend, batch_size

    def predict(self, images: Iterable[Content | str], *, heat_maps: bool = False) -> list[Prediction]:
        """A prediction for each image, in their order.

        An image is a path, the bytes of a file, a Pillow image, or an array uint8 (height, width, 3) of RGB. Its
        central square counts. One that cannot be used has an `error`. Raises UserError if memory is short, or if heat
        maps are asked for and there are none.
        """
        return list(self.predictions(in_memory(images), heat_maps=heat_maps))

    def predictions(self, images: Iterable[Named], *, heat_maps: bool = False) -> Iterator[Prediction]:
        """The same, one after the other, while the next ones are read, decoded and computed."""
        size, device = self.batch_size, self.ranks.device
        threads = decoder_threads(None, self.ranks)
        decoder = create_decoder(self.backend, size, self.network.image_size, device, None, threads)

        def work(batch: Batch) -> Results:
            return self.network.results(batch.pixels, maps=heat_maps) if batch.places else Results()

        with enough_memory("give a smaller batch size"), closing(batches(images, decoder, size)) as loaded:
            for batch, results in compute(loaded, work):
                places = {place: number for number, place in enumerate(batch.places)}
                for place, (image, found) in enumerate(zip(batch.images, batch.found, strict=True)):
                    if place in places:
                        yield self.prediction(image.name, found.note, results, places[place])
                    else:
                        yield Prediction(image=image.name, error=found.error)

    def prediction(self, name: str, note: str, results: Results, number: int) -> Prediction:
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
            note=note,
            heat_map=None if results.maps is None else results.maps[number],
            face=None if results.faces is None else results.faces[number],
        )


def load(
    checkpoint: str | Path,
    *,
    evaluation: str = "",
    threshold: str = "0.5",
    backend: Backend = BACKEND,
    precision: WantedPrecision = "run",
    batch_size: int = 64,
) -> Model:
    """The model of a checkpoint: a file, or a run by its directory or its name, for its best one.

    The other arguments are as the options of `hpcgender predict`. Raises UserError for a checkpoint that is missing or
    damaged, and for an evaluation that is not its own.
    """
    path = checkpoint_file(Path(checkpoint))
    check_checkpoint(path)
    decision = DecisionConfig(evaluation=evaluation, threshold=threshold).decision(path, digest(path))
    ranks = Ranks(0, 1, select_device())
    trained = load_trained(path, ranks.device)
    network = TorchNetwork(trained, for_inference(precision, trained.about["config"], ranks.device))
    return Model(network, decision, ranks, backend, batch_size)
