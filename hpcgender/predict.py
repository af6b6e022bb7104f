"""Prediction of image files, through the pixels that evaluation sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.commands.predict import PredictConfig
from hpcgender.data.augment_params import centred
from hpcgender.data.decoders import create_decoder
from hpcgender.data.shards import Encoded
from hpcgender.distributed import process_group
from shard_tools.base.errors import UserError
from shard_tools.images import ImageError, fingerprint

BATCH = 32


def predict(config: PredictConfig) -> None:
    """Prints the class and the confidence of every image."""
    config.check()
    encoded = [read_image(path) for path in config.images]
    with process_group() as ranks:
        trained = load_trained(config.checkpoint, ranks.device)
        size = min(BATCH, len(encoded))
        decoder = create_decoder(config.backend, size, trained.image_size, ranks.device, None, threads=1)
        results = []
        for begin in range(0, len(encoded), size):
            batch = encoded[begin : begin + size]
            decoder.submit(batch, centred(len(batch)))
            with torch.inference_mode():
                outputs = trained.model(decoder.result().to(memory_format=torch.channels_last))
            for place, path in enumerate(config.images[begin : begin + size]):
                result: dict[str, Any] = {"image": str(path)}
                if outputs.gender is not None:
                    probabilities = outputs.gender[place].double().softmax(0).tolist()
                    best = int(np.argmax(probabilities))
                    result |= {
                        "label": trained.classes[best],
                        "confidence_percent": round(100 * probabilities[best], 2),
                        "probabilities": dict(zip(trained.classes, probabilities, strict=True)),
                    }
                if outputs.age is not None:
                    result["age"] = round(float(outputs.age[place]), 1)
                results.append(result)
    if config.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            said = [f"{result['label']} {result['confidence_percent']:.2f} %"] if "label" in result else []
            said += [f"{result['age']} years"] if "age" in result else []
            print(f"{result['image']}: {', '.join(said)}")


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
