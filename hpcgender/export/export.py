"""`hpcgender export`: the model in its format, compared with the checkpoint before it is published."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from hpcgender.checkpoint import Trained, load_trained
from hpcgender.checkpoint_file import digest, kept_temperature
from hpcgender.commands.export import ExportConfig
from hpcgender.evaluate.decision import Decision
from hpcgender.export.metadata import metadata
from hpcgender.export.parity import Exported, Results, chosen_pixels, differences, expected
from hpcgender.export.portable import Portable, output_names
from hpcgender.export.weights import normalisation, peer, plain_state
from hpcgender.inference.outputs import log_odds
from hpcgender.models.create import create
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.extras import pip_install
from shard_tools.base.files import write_file
from shard_tools.base.text import byte_size, plural
from shard_tools.manifest import read_manifest

EXAMPLE_SIDE = 96


class Made(NamedTuple):
    """A model in a format."""

    content: bytes
    exported: Exported
    """What the content computes, read back from it."""
    says: tuple[str, ...]
    """Lines for people: how to use it, and what the format cannot hold."""


def export(config: ExportConfig) -> None:
    """Writes the file that `config` asks for; UserError if the format cannot hold the model, or computes otherwise."""
    config.check()
    trained = load_trained(config.checkpoint, torch.device("cpu"))
    trained.model.requires_grad_(False)
    identity = digest(config.checkpoint)
    decision = config.decision(config.checkpoint, identity, kept_temperature(config.checkpoint))
    pixels = chosen_pixels(read_manifest(config.data), config.split, config.images, trained)
    made = FORMATS[config.format](trained, decision, metadata(trained, identity, decision))
    apart = differences(made.exported, pixels, expected(trained, pixels))
    config.file.parent.mkdir(parents=True, exist_ok=True)
    write_file(config.file, made.content)
    shown = ", ".join(f"{name} {value:.2g}" for name, value in sorted(apart.items()))
    print(f"{config.file} ({byte_size(len(made.content))}): {decision.words}")
    print(f"largest difference from the checkpoint on {plural(len(pixels), 'image')} of {config.split}: {shown}")
    print("\n".join(made.says))


def exported_program(trained: Trained, decision: Decision) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """The whole computation as a graph for any number of images of any size, and the names of its results."""
    # torch.export.save warns of weights in channels_last as if parts of them were missing.
    network = copy.deepcopy(trained.model).to(memory_format=torch.contiguous_format)
    portable = Portable(network, trained.image_size, decision.temperature).eval()
    example = torch.zeros(2, 3, EXAMPLE_SIDE, EXAMPLE_SIDE + 1, dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(portable, (example,), dynamic_shapes={"images": {0: free, 2: free, 3: free}})
    return program, output_names(trained.config.tasks)


def onnx(trained: Trained, decision: Decision, about: dict[str, str]) -> Made:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError as error:
        how = pip_install("export")
        raise UserError(f"{error.name} is not installed: install the extra export: {how}") from None
    program, names = exported_program(trained, decision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        converted = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=list(names), opset_version=20, verbose=False
        )
    assert converted is not None
    model = converted.model_proto
    onnx.helper.set_model_props(model, about)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def exported(images: torch.Tensor) -> Results:
        return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))

    return Made(content, exported, (takes(names), "for onnxruntime: session.run(None, {'images': images})"))


def archive(trained: Trained, decision: Decision, about: dict[str, str]) -> Made:
    program, names = exported_program(trained, decision)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(about, indent=1)})
    module = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    def exported(images: torch.Tensor) -> Results:
        with torch.no_grad():
            return {name: np.asarray(found) for name, found in zip(names, module(images), strict=True)}

    return Made(buffer.getvalue(), exported, (takes(names), "for torch.export.load(FILE).module()(images)"))


def takes(names: tuple[str, ...]) -> str:
    what = "square images uint8 (n, 3, height, width) of RGB, of any size"
    return f"takes {what}; returns {', '.join(names)}; it was compared at the network's size"


def safetensors(trained: Trained, decision: Decision, about: dict[str, str]) -> Made:
    from safetensors.torch import load

    state = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
    content = tensors(state, about)
    network = create(trained.config, len(trained.classes), trained.image_size)
    network.load_state_dict(load(content))
    network.eval()

    def exported(images: torch.Tensor) -> Results:
        return expected(replace(trained, model=network), images)

    return Made(
        content,
        exported,
        ("holds the weights by hpcgender's names; the temperature is in its metadata, resizing is not in it",),
    )


def tensors(state: dict[str, torch.Tensor], about: dict[str, str]) -> bytes:
    """A safetensors file, of the same bytes each time: the library writes metadata in an order that it draws."""
    from safetensors.torch import save

    content = save(state, metadata=about)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header["__metadata__"] = dict(sorted(about.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as the library does, so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text + content[begin:]


def of_library(library: str) -> Callable[[Trained, Decision, dict[str, str]], Made]:
    def made(trained: Trained, decision: Decision, about: dict[str, str]) -> Made:
        from safetensors.torch import load

        model, call = peer(trained, library)
        state = plain_state(trained, decision.temperature)
        mean, std = normalisation(trained)
        size = trained.image_size
        if library == "timm":
            content = tensors(state, about)
            read = load(content)
        else:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            content = buffer.getvalue()
            read = torch.load(io.BytesIO(content), weights_only=True)
        try:
            model.load_state_dict(read)
        except RuntimeError as error:  # e.g. a last layer of timm's that is more than linear
            raise UserError(
                f"{library} has no {trained.name} that computes the same ({one_line(error)[:200]}): export it as onnx, "
                "torch or safetensors"
            ) from None
        model.eval()

        def exported(images: torch.Tensor) -> Results:
            shaped = [torch.tensor(values)[:, None, None] for values in (mean, std)]
            with torch.no_grad():
                logits = model((images.float() / 255 - shaped[0]) / shaped[1])
            return {"logit": log_odds(logits).numpy() * np.float32(decision.temperature)}

        lacks = ["resizing and normalisation", *(["age"] if "age" in trained.config.tasks else [])]
        lacks += [] if library == "timm" else ["classes, threshold and model card"]
        return Made(
            content,
            exported,
            (
                f"for {call}; the temperature is in its last layer",
                f"cannot hold {', '.join(lacks)}: give it RGB images of {size}x{size} pixels "
                f"in [0, 1], minus {mean}, divided by {std}; classes are {', '.join(trained.classes)}",
            ),
        )

    return made


FORMATS: dict[str, Callable[[Trained, Decision, dict[str, str]], Made]] = {
    "onnx": onnx,
    "torch": archive,
    "safetensors": safetensors,
    "timm": of_library("timm"),
    "torchvision": of_library("torchvision"),
}
