"""Prediction of image files, from the same pixels and by the same computation as evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.commands.predict import PredictConfig
from hpcgender.data.augment import centred
from hpcgender.data.decoders import create_decoder
from hpcgender.data.shards import Encoded
from hpcgender.distributed import process_group
from hpcgender.inference.engine import compute
from hpcgender.inference.outputs import outputs_of
from hpcgender.models.network import Outputs
from shard_tools.base.errors import UserError
from shard_tools.images import ImageError, fingerprint

BATCH = 32


def predict(config: PredictConfig) -> None:
    """Prints the predicted class and its probability, and the age, of each image."""
    config.check()
    encoded = [read_image(path) for path in config.images]
    with process_group() as ranks:
        trained = load_trained(config.checkpoint, ranks.device)
        size = min(BATCH, len(encoded))
        decoder = create_decoder(config.backend, size, trained.image_size, ranks.device, None, threads=1)

        def decoded() -> Iterator[torch.Tensor]:
            for begin in range(0, len(encoded), size):
                batch = encoded[begin : begin + size]
                decoder.submit(batch, centred(len(batch)))
                yield decoder.result()

        predicted = compute(decoded(), lambda images: outputs_of(trained.model, images))
        found = [result for _, outputs in predicted for result in results_of(outputs, trained.classes)]
    results = [{"image": str(path), **result} for path, result in zip(config.images, found, strict=True)]
    if config.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            parts = [f"{result['label']} {result['confidence_percent']:.2f} %"] if "label" in result else []
            parts += [f"{result['age']} years"] if "age" in result else []
            print(f"{result['image']}: {', '.join(parts)}")


def results_of(outputs: Outputs, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The numbers of each of n images, by their names in JSON."""
    tasks = [values for values in outputs[:2] if values is not None]
    results: list[dict[str, Any]] = [{} for _ in tasks[0]]
    for place, result in enumerate(results):
        if outputs.gender is not None:
            probabilities = outputs.gender[place].double().softmax(0).tolist()
            best = int(np.argmax(probabilities))
            result |= {
                "label": classes[best],
                "confidence_percent": round(100 * probabilities[best], 2),
                "probabilities": dict(zip(classes, probabilities, strict=True)),
            }
        if outputs.age is not None:
            result["age"] = round(float(outputs.age[place]), 1)
    return results


def read_image(path: Path) -> Encoded:
    """The bytes of an image file; UserError if it does not decode."""
    try:
        encoded = path.read_bytes()
        fingerprint(encoded)
    except ImageError as error:
        raise UserError(f"cannot use {path}: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return np.frombuffer(encoded, dtype=np.uint8)
