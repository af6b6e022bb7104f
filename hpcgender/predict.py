"""Prediction of image files, from the same pixels and by the same computation as evaluation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.commands.predict import PredictConfig
from hpcgender.data.augment import centred
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.data.decoders.decoder import BadImages, Decoder
from hpcgender.data.shards import Encoded
from hpcgender.distributed import Ranks, select_device
from hpcgender.inference.engine import compute
from hpcgender.inference.outputs import outputs_of
from hpcgender.models.network import Outputs
from hpcgender.precision import for_inference
from shard_tools.base.errors import BAD_INPUT
from shard_tools.base.text import printable
from shard_tools.images import ImageError, fingerprint

BATCH = 32


def predict(config: PredictConfig) -> int:
    """Prints the predicted class and its probability, and the age, of each image.

    An image that cannot be used is named on stderr; returns BAD_INPUT if none can be used.
    """
    config.check()
    device = select_device()
    trained = load_trained(config.checkpoint, device)
    precision = for_inference(config.precision, trained.about["config"], device)
    size = min(BATCH, len(config.images))
    threads = decoder_threads(None, Ranks(0, 1, device))
    decoder = create_decoder(config.backend, size, trained.image_size, device, None, threads)
    rows: list[dict[str, Any]] = [{"image": str(path)} for path in config.images]
    for (numbers, _), outputs in compute(
        batches(config.images, decoder, size, rows), lambda batch: outputs_of(trained.model, batch[1], precision)
    ):
        for number, result in zip(numbers, results_of(outputs, trained.classes), strict=True):
            rows[number] |= {**result, "precision": precision.name}
    failed = [row for row in rows if "error" in row]
    if config.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            parts = [f"{row['label']} {row['confidence_percent']:.2f} %"] if "label" in row else []
            parts += [f"{row['age']} years"] if "age" in row else []
            if parts:
                print(printable(f"{row['image']}: {', '.join(parts)}"))
    for row in failed:
        print(printable(f"hpcgender: cannot use {row['image']}: {row['error']}"), file=sys.stderr)
    if failed and len(rows) > 1:
        print(f"hpcgender: {len(failed)} of {len(rows)} images cannot be used", file=sys.stderr)
    return BAD_INPUT if len(failed) == len(rows) else 0


def batches(
    images: Sequence[Path], decoder: Decoder, size: int, rows: list[dict[str, Any]]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The numbers and pixels of the images that can be used; why the others cannot goes into their `rows`."""
    for begin in range(0, len(images), size):
        read = {number: read_image(images[number], rows[number]) for number in range(len(images))[begin : begin + size]}
        encoded = {number: image for number, image in read.items() if image is not None}
        if encoded:
            decoder.submit(list(encoded.values()), centred(len(encoded)))
            pixels = decoded(decoder, encoded, rows)
            if encoded:
                yield list(encoded), pixels


def decoded(decoder: Decoder, encoded: dict[int, Encoded], rows: list[dict[str, Any]]) -> torch.Tensor:
    """The pixels of the submitted images that decode; the others are taken out of `encoded`."""
    try:
        return decoder.result()
    except BadImages as bad:
        numbers = list(encoded)
        for place, reason in bad.reasons.items():
            rows[numbers[place]]["error"] = reason
            del encoded[numbers[place]]
    decoder.resubmit(list(encoded.values()), centred(len(encoded)))
    return decoded(decoder, encoded, rows) if encoded else torch.empty(0)


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


def read_image(path: Path, row: dict[str, Any]) -> Encoded | None:
    """The bytes of an image file; None if it cannot be used, and why in its `row`."""
    try:
        encoded = path.read_bytes()
        fingerprint(encoded, appearance=False)
    except OSError as error:
        row["error"] = f"it cannot be read: {error.strerror}"
    except ImageError as error:
        row["error"] = str(error)
    else:
        return np.frombuffer(encoded, dtype=np.uint8)
    return None
