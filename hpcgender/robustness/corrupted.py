"""Predictions of corrupted images: the pass that makes them, and `robustness.parquet`, which keeps them.

Its columns are `key`, and for each corruption and severity `blur-1 logit` and `blur-1 age`: log-odds of male, and
years. Its rows are those of predictions.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.data.decoders import decoder_threads
from hpcgender.data.decoders.decoder import MEAN, STD, to_pixels
from hpcgender.data.loader import Batch
from hpcgender.evaluate.predict_split import NAMES, SplitPass
from hpcgender.evaluate.predictions import Mask, Texts
from hpcgender.inference.blocks import Rows, read_rows
from hpcgender.inference.session import Session
from hpcgender.robustness.corruptions import CORRUPTIONS, SEVERITIES, Pixels, corrupt
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_file

FILE = "robustness.parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrupted:
    """Of n images with a corruption of each severity, in the order of their predictions."""

    logit: npt.NDArray[np.float32]
    """(n, 5); nan as in predictions."""
    age: npt.NDArray[np.float32]
    """(n, 5), years; nan as in predictions."""

    def rows(self, chosen: Mask) -> Corrupted:
        """The same of some of the images."""
        return Corrupted(logit=self.logit[chosen], age=self.age[chosen])


class CorruptedPass(SplitPass):
    """A pass over a split with each severity of a corruption in turn."""

    shape = (len(SEVERITIES),)
    pool: ThreadPoolExecutor | None = None
    """Threads that corrupt; None: that which calls `work`."""

    def __init__(self, session: Session[EvaluateConfig], split: str, name: str) -> None:
        strengths = " ".join(f"{strength:g}" for strength in CORRUPTIONS[name].strengths)
        super().__init__(session, split, name, corruption=f"{name} {strengths}")
        self.name = name
        self.keys = session.manifest.index(split)["key"]
        self.computed *= len(SEVERITIES)

    def run(self) -> None:
        """Computes what is missing. Beside a GPU, the threads that decode are also as many as corrupt.

        Without one, batches are computed in threads of their own already.
        """
        session = self.session
        if session.ranks.device.type == "cpu":
            super().run()
            return
        with ThreadPoolExecutor(max(1, decoder_threads(session.config.workers, session.ranks)), "corrupt") as pool:
            self.pool = pool
            super().run()

    def work(self, batch: Batch) -> Rows:
        """Log-odds and ages of a batch with each severity, (n, 5) each."""
        clean = to_pixels(batch.images).cpu().permute(0, 2, 3, 1).numpy()
        keys = self.keys[batch.samples].tolist()
        found = []
        for severity in SEVERITIES:
            pixels = corrupt_all(clean, self.name, severity, keys, self.pool)
            levels = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
            found.append(self.rows(torch.empty_like(batch.images).copy_((levels - MEAN) / STD)))
        return {name: np.stack([rows[name] for rows in found], axis=1) for name in found[0]}

    def corrupted(self) -> Corrupted:
        """All ranks' results, on rank 0 after the end of the pass."""
        order = np.argsort([key.decode() for key in self.keys.tolist()], kind="stable")
        logit, age = (read_rows(self.directory, self.blocks, name, self.blocks.samples)[order] for name in NAMES)
        return Corrupted(logit=logit, age=age)


def corrupt_all(
    pixels: Pixels, name: str, severity: int, keys: Sequence[bytes], pool: ThreadPoolExecutor | None
) -> Pixels:
    """Images (n, size, size, 3) with a corruption, each in one thread: the same bits for any number of them."""
    pairs = zip(pixels, keys, strict=True)
    of_all = (pool.map if pool else map)(lambda pair: corrupt(pair[0], name, severity, pair[1]), pairs)
    return np.stack([*of_all])


def write_corrupted(directory: Path, keys: Texts, corrupted: Mapping[str, Corrupted]) -> None:
    """Writes robustness.parquet: the images' keys, and their predictions by corruption."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {"key": pa.array(keys.tolist(), pa.string())}
    for name, one in corrupted.items():
        for place, severity in enumerate(SEVERITIES):
            for kind, values in (("logit", one.logit), ("age", one.age)):
                columns[f"{name}-{severity} {kind}"] = pa.array(values[:, place], from_pandas=True)  # nan is null
    with whole_file(directory / FILE) as file:
        parquet.write_table(pa.table(columns), file)


def read_corrupted(directory: Path, names: tuple[str, ...], keys: Texts) -> dict[str, Corrupted]:
    """The predictions in a directory's robustness.parquet; UserError if it cannot be read.

    `keys` are those of predictions.parquet, whose images it must have.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    path = directory / FILE
    try:
        table = read_table(path)

        def columns(name: str, kind: str) -> npt.NDArray[np.float32]:
            found = [table.column(f"{name}-{severity} {kind}") for severity in SEVERITIES]
            return np.stack([column.to_numpy().astype(np.float32) for column in found], axis=1)

        own = table.column("key").to_pylist()
        found = {name: Corrupted(logit=columns(name, "logit"), age=columns(name, "age")) for name in names}
    except (OSError, ArrowException, KeyError) as error:
        raise UserError(f"cannot read {path} ({one_line(error)[:200]}): evaluate again with --corrupt") from None
    if own != keys.tolist():
        raise UserError(f"{path} has other images than the predictions beside it: evaluate again with --corrupt")
    return found
