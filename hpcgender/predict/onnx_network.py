"""The network of an exported ONNX file, by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint_file import KeptTemperature
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.export.metadata import read_metadata
from hpcgender.inference.outputs import check_finite
from hpcgender.precision import Precision
from hpcgender.predict.networks import Results
from shard_tools.base.errors import UserError, one_line
from shard_tools.manifest import CLASSES

CPU = torch.device("cpu")


class OnnxNetwork:
    """The network that `hpcgender export --format onnx` wrote, and what its metadata says. Safe to call from threads.

    UserError if the file is not one, is damaged, or onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.session = path, session_of(path)
        about = read_metadata(self.session.get_modelmeta().custom_metadata_map, path)
        if about.classes != CLASSES:
            raise UserError(f"{path} was trained for classes {', '.join(about.classes)}, not {', '.join(CLASSES)}")
        self.crop, self.digest, self.image_size = about.crop, about.digest, about.image_size
        self.threshold, self.threshold_from = about.threshold_log_odds, about.threshold_from
        self.temperature = (
            KeptTemperature(value=about.temperature, fitted_on=about.calibrated_by) if about.calibrated_by else None
        )
        self.has_gender, self.has_maps = "gender" in about.tasks, False
        self.precision = Precision("fp32", CPU)
        self.names = [output.name for output in self.session.get_outputs()]
        given = [entry.name for entry in self.session.get_inputs()]
        expected = {"logit": "gender", "age": "age"}
        if given != ["images"] or any((name in self.names) != (task in about.tasks) for name, task in expected.items()):
            raise UserError(f"{path} is damaged (its inputs and outputs are others than it says): export it again")

    def results(self, pixels: torch.Tensor, *, maps: bool) -> Results:
        """Of images float32 (n, 3, size, size) in [-1, 1]; UserError for heat maps, which it cannot make."""
        if maps:
            raise UserError("an exported model has no heat maps: give its checkpoint")
        try:
            outputs = self.session.run(None, {"images": to_pixels(pixels).numpy()})
        except Exception as error:  # its errors have no common class
            raise UserError(f"{self.path} is damaged ({one_line(error)[:200]}): export it again") from None
        found = dict(zip(self.names, outputs, strict=True))
        numbers = [found[name] for name in ("logit", "age") if name in found]
        if any(values.shape != (len(pixels),) for values in numbers):
            raise UserError(f"{self.path} is damaged (it has not one number for each image): export it again")
        check_finite(*map(torch.from_numpy, numbers))
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
    # Each batch is computed by one thread, and several at once: also beside a GPU, which computes nothing of it.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise UserError(f"{path} is damaged, or no ONNX file: {one_line(error)[:200]}") from None
