"""The network of an exported ONNX file, by onnxruntime on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint_file import KeptTemperature
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.inference.outputs import check_finite
from hpcgender.precision import Precision
from hpcgender.predict.networks import Results
from shard_tools.align.recipe import Recipe
from shard_tools.base.documents import restored
from shard_tools.base.errors import UserError, one_line
from shard_tools.manifest import CLASSES

CPU = torch.device("cpu")


class OnnxNetwork:
    """The network that `hpcgender export --format onnx` wrote, and what its metadata says. Safe to call from threads.

    UserError if the file is not one, is damaged, or onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.session = session_of(path)
        about = self.session.get_modelmeta().custom_metadata_map
        if "hpcgender" not in about:
            raise UserError(f"{path} is no model of hpcgender export --format onnx: give one, or a checkpoint")
        if tuple(json.loads(about["classes"])) != CLASSES:
            raise UserError(f"{path} was trained for classes {about['classes']}, not {', '.join(CLASSES)}")
        crop, again = json.loads(about["crop"]), "export it again"
        self.crop = restored(Recipe, crop, path, again) if crop else None
        self.digest = about["digest"]
        """Of the checkpoint that was exported, which its evaluations refer to."""
        self.threshold = float(about["threshold_log_odds"])
        self.temperature = (
            KeptTemperature(value=float(about["temperature"]), fitted_on=about["calibrated_by"])
            if about["calibrated_by"]
            else None
        )
        self.image_size = int(about["image_size"])
        self.has_gender, self.has_maps = "gender" in json.loads(about["tasks"]), False
        self.precision = Precision("fp32", CPU)
        self.names = [output.name for output in self.session.get_outputs()]

    def results(self, pixels: torch.Tensor, *, maps: bool) -> Results:
        """Of images float32 (n, 3, size, size) in [-1, 1]; UserError for heat maps, which it cannot make."""
        if maps:
            raise UserError("an exported model has no heat maps: give its checkpoint")
        found = dict(zip(self.names, self.session.run(None, {"images": to_pixels(pixels).numpy()}), strict=True))
        check_finite(*map(torch.from_numpy, found.values()))
        return Results(found.get("logit"), found.get("age"))


def session_of(path: Path) -> Any:
    """The file as onnxruntime runs it."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "onnxruntime is not installed: install the extra export: .venv/bin/pip install -c constraints.txt -e "
            "'.[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    if not torch.cuda.is_available():  # then each batch is computed by one thread, and several at once
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise UserError(f"{path} is damaged, or no ONNX file: {one_line(error)[:200]}") from None
