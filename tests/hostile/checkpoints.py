"""Checkpoints, weights of other programs, ONNX files, and what reads a data set to compute."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from xxhash import xxh3_128_hexdigest

import hpcgender
from hpcgender.checkpoint_file import MARK
from hpcgender.commands import HPCGENDER
from shard_tools.base.errors import StorageError, UserError
from tests.hostile.base import Base
from tests.hostile.mutations import damaged
from tests.hostile.workers import REFUSED, RIGHT, command
from tests.violations import ViolationError


def reads(data: Path) -> None:
    """The data set as a program reads it: every image and its labels, or a UserError."""
    try:
        for split in ("train", "val"):
            images = hpcgender.open(str(data), split, image_size=32)
            for number in (0, len(images) - 1):
                if not np.isfinite(np.asarray(images[number][0])).all():
                    raise ViolationError("pixels that are no numbers")
            dict(images.columns)
    except (UserError, StorageError):
        return


def evaluated(base: Base, data: Path, work: Path) -> None:
    """Evaluates the base's checkpoint on a data set that may be damaged."""
    done = command(
        HPCGENDER, "evaluate", "--checkpoint", base.checkpoint, "--data", data, "--split", "val", "--backend",
        "torchvision", "--out", work / "evaluation",
    )  # fmt: skip
    if done.code == 2 and (work / "evaluation" / "evaluation.json").exists():
        raise ViolationError(f"it was refused, but there is an evaluation: {done.err}")


class Sings:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.system, (f"touch {self.canary}",))


def sealed(raw: bytes) -> bytes:
    """The bytes with the ending that marks them as an intact checkpoint."""
    return raw + MARK + xxh3_128_hexdigest(raw).encode() + b"\n"


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


BAD_STREAMS = (b"\x80\x02h\x05.", b"\x80\x02\x85.", b"\x80\x02X\x01\x00\x00\x00\xff.", b"\x80\x02}K\x01a.")
"""Pickles that no program writes: of what is not there, no text, of another type."""


def rewritten(raw: bytes, stream: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of torch.save as another program writes it, with another pickle if that is given."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(file, "w", compression) as other:
        for name in archive.namelist():
            other.writestr(name, stream if stream and name.endswith("data.pkl") else archive.read(name))
    return file.getvalue()


ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 10**6, 2**40, 10**400, -0.5, float("nan"), float("inf"), "", "x", "a\nb", "\ud800"),
    *(
        [],
        {},
        ["male", "female"],
        ["a", "b"],
        {"a": 1},
        "../../x",
        "cuda:7",
        [40_000, 40_000],
        torch.zeros(3),
        torch.tensor(5),
    ),
)


def other_content(path: Path, draw: random.Random) -> object:
    """The content of a checkpoint with one or two things in it that are other than they were."""
    content: Any = torch.load(path, weights_only=True)
    for _ in range(draw.choice((1, 1, 2))):
        how = draw.randrange(9)
        weights = content.get("model") if isinstance(content, dict) else None
        if how == 0:
            return draw.choice(ODD)
        if not isinstance(content, dict) or not isinstance(weights, dict) or not weights:
            return content
        name = draw.choice(list(weights))
        if how == 1:
            content.pop(draw.choice(list(content)))
        elif how == 2:
            content[draw.choice(list(content))] = draw.choice(ODD)
        elif how in (3, 4) and isinstance(content.get("config"), dict):
            key = draw.choice(
                (*content["config"], "image_size", "model", "tasks", "precision", "output_stride", "head_layers")
            )
            content["config"][key] = draw.choice(ODD)
            if draw.random() < 0.2:
                del content["config"][key]
        elif how == 5:
            weights[name] = draw.choice((None, "x", torch.zeros(0), torch.zeros(1).expand(10**6, 10**5), 3.0))
        elif how == 6:
            kind = draw.choice((torch.float64, torch.float16, torch.int64, torch.complex64, torch.bool))
            content["model"] = {key: value.to(kind) for key, value in weights.items()}
        elif how == 7:
            weights[name] = torch.full_like(weights[name].float(), draw.choice((np.nan, np.inf, 1e38, -1e38)))
        else:
            weights[draw.choice(("extra", "", "a.b.c"))] = weights.pop(name)
    return content


def hostile_checkpoint(base: Base, draw: random.Random, source: Path) -> bytes:
    """The bytes of a checkpoint that is none, or holds something else."""
    raw = source.read_bytes()
    how = draw.randrange(6)
    if how == 0:
        return damaged(raw, draw)
    if how == 1:
        sings = Sings(base.canary)
        return sealed(
            draw.choice(
                (
                    pickle.dumps(draw.choice((sings, {"model": sings}))),
                    rewritten(saved({}), draw.choice(BAD_STREAMS)),
                    rewritten(saved({"model": torch.zeros(1 << 23)}), compression=zipfile.ZIP_DEFLATED),
                )
            )
        )
    if how == 2:
        file = io.BytesIO()
        torch.save({"format": "hpcgender-checkpoint-2", "model": Sings(base.canary)}, file)
        return sealed(file.getvalue())
    if how == 3:
        body = raw[: raw.rindex(MARK)]
        return sealed(damaged(body, draw))
    return sealed(saved(other_content(source, draw)))


def checkpoint(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`predict`, `evaluate`, `export` and a resumed `train` with checkpoints that are damaged or made to harm."""
    run = work / "runs" / "tiny"
    shutil.copytree(base.run, run, ignore=shutil.ignore_patterns("evaluations", "cams", "tensorboard", "submissions"))
    how = draw.choice(("predict", "predict", "evaluate", "export", "train"))
    path = run / "checkpoints" / ("best.pt" if how != "train" else base.last.resolve().name)
    raw = hostile_checkpoint(base, draw, path)
    before = path.read_bytes()
    path.unlink()
    path.write_bytes(raw)
    data = ("--data", base.shards, "--split", "val")
    photo = base.photos[0]
    out = work / "out.safetensors"
    words: dict[str, tuple[object, ...]] = {
        "predict": ("predict", "--checkpoint", path, "--backend", "torchvision", "--json", photo),
        "evaluate": ("evaluate", "--checkpoint", path, *data, "--backend", "torchvision", "--out", work / "found"),
        "export": ("export", "--checkpoint", path, *data, "--format", "safetensors", "--out", out),
        "train": ("train", "--runs", run.parent, "--name", "tiny", "--resume", "--epochs", 1, "--data", base.shards),
    }
    done = command(HPCGENDER, *words[how])
    base.check_canary()
    if done.code == 0 and how == "predict" and raw != before:
        (found,) = json.loads(done.out)
        if not 0 <= found["probability"] <= 1:
            raise ViolationError(f"a prediction is none: {found}")
    if done.code and out.exists():
        raise ViolationError("the export was refused, and its file is there")
    return Counter({done.verdict: 1})


def weights(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`train --pretrained` with safetensors and files of torch.save by other programs."""
    how = draw.randrange(8)
    path = work / draw.choice(("w.pth", "w.pt", "w.safetensors", "w.bin", "w"))
    source = base.exports / "tiny.safetensors"
    if how == 0:
        raw = damaged(source.read_bytes(), draw)
    elif how == 1:
        raw = other_header(source.read_bytes(), draw)
    elif how == 2:
        raw = pickle.dumps(draw.choice((Sings(base.canary), {"state_dict": Sings(base.canary), "x": torch.zeros(2)})))
    elif how == 3:
        raw = saved({"state_dict": {"conv1.weight": torch.zeros(2)}, "args": Sings(base.canary)})
    elif how == 4:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", pickle.dumps(Sings(base.canary), protocol=2))
            archive.writestr("a/version", "3\n")
            archive.writestr("../../../../escaped", "x")
            archive.writestr("a/data/0", bytes(64 << 20))
        raw = file.getvalue()
    elif how == 5:
        raw = saved(draw.choice((*ODD, {1: torch.zeros(2)}, {"a": torch.zeros(1).expand(10**6, 10**6)})))
    elif how == 6:
        raw = damaged(saved(torch.load(base.checkpoint, weights_only=True)["model"]), draw)
    else:
        content = torch.load(base.checkpoint, weights_only=True)["model"]
        name = draw.choice(list(content))
        content[name] = draw.choice((torch.zeros(0), content[name].double() * np.nan, content[name].flatten()))
        raw = saved(content)
    path.write_bytes(raw)
    done = command(
        HPCGENDER, "train", "--data", base.shards, "--runs", work, "--name", "new", "--model", "compact", "--epochs", 1,
        *("--image-size", 32, "--batch-size", 32, "--backend", "torchvision", "--pretrained", path),
    )  # fmt: skip
    base.check_canary()
    return Counter({done.verdict: 1})


def other_header(raw: bytes, draw: random.Random) -> bytes:
    """safetensors whose header claims other things than the file has."""
    length = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8 : 8 + length])
    name = draw.choice([name for name in header if name != "__metadata__"])
    how = draw.randrange(6)
    if how == 0:
        header[name]["shape"] = draw.choice(([2**40, 2**40], [-1], [0], []))
    elif how == 1:
        header[name]["data_offsets"] = draw.choice(([0, 2**62], [9, 3], [-5, 0], [0, 0]))
    elif how == 2:
        header[name]["dtype"] = draw.choice(("F64", "I8", "X", "", "BF16"))
    elif how == 3:
        header = {"a": "[" * 9000}
    elif how == 4:
        return struct.pack("<Q", draw.choice((2**63, length - 1, 0, 100_000_000))) + raw[8:]
    else:
        header["__metadata__"] = draw.choice(({"hpcgender": "x"}, {"a": 1}, [], "x"))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def onnx(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`predict` with ONNX files that are damaged, or whose metadata says other things."""
    raw = (base.exports / "tiny.onnx").read_bytes()
    path = work / "m.onnx"
    if draw.random() < 0.4:
        path.write_bytes(damaged(raw, draw))
    else:
        import onnx

        model = onnx.load_from_string(raw)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        for _ in range(draw.choice((1, 2))):
            key = draw.choice(list(properties))
            if draw.random() < 0.3:
                del properties[key]
            else:
                properties[key] = draw.choice(
                    (
                        "",
                        "x",
                        "null",
                        "[]",
                        "{}",
                        "-1",
                        "0",
                        "1e9",
                        "100000",
                        "nan",
                        "[" * 5000,
                        '["male", "female"]',
                        '{"a": 1}',
                        "1" * 5000,
                        "\u202e",
                        "a\nb",
                    )
                )
            if not properties:
                break
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, properties)
        if draw.random() < 0.3:
            side = draw.choice((0, 1, 7, 5000))
            model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = side
        if draw.random() < 0.2 and len(model.graph.output) > 1:
            del model.graph.output[0]
        path.write_bytes(model.SerializeToString())
    done = command(HPCGENDER, "predict", "--checkpoint", path, "--backend", "torchvision", "--json", base.photos[0])
    if done.code == 0:
        (found,) = json.loads(done.out)
        if not 0 <= found.get("probability", 0.5) <= 1:
            raise ViolationError(f"a prediction is none: {found}")
    return Counter({REFUSED if done.code else RIGHT: 1})
