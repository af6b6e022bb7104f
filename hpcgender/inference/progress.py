"""The state of a pass over images, kept in files: killed and started again, it does only what is missing.

Each rank of each start has a file of its own, `work/<pass>-<start>-<rank>.npz`: which blocks it did, the results of
those whose shard is not complete yet, and sums over all of its images. It is written every few seconds, and when a
stop is requested. Sums are of integers, so it does not matter which rank did what, or in which order. At the end they
become one file, `work/<pass>.npz`, which means that the pass is complete. `work/<pass>.json` is their origin: results
of another checkpoint, for example, are never taken for this one's.
"""

from __future__ import annotations

import io
import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.distributed import Ranks
from hpcgender.inference.blocks import Blocks, Rows, shard_path, write_shard
from hpcgender.inference.facts import Origin, check_origin, note_path, read_note
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import write_whole
from shard_tools.base.storage import retried

Arrays = dict[str, npt.NDArray[Any]]
Sums = dict[str, npt.NDArray[np.int64]]

MACHINE = "began on"
"""In the note of an origin: where the first images were computed."""
SAVE_EVERY_S = 15.0
"""Seconds of work that a kill costs at most."""


class Found(NamedTuple):
    """The state that earlier starts left."""

    start: int
    """Number of this one."""
    done: set[int]
    """Blocks."""
    open: dict[int, Rows]
    """Results of the blocks whose shards are not complete."""
    complete: set[int]
    """Shards."""


class Progress:
    """What this rank is to do of a pass, and has done. Shards of results go into `directory`, the state into `work`.

    If the results that are there are of another `origin`, they are removed and begun `anew`, or it raises UserError.
    Every rank must create it together with the others, and finish it.
    """

    def __init__(
        self, directory: Path, work: Path, blocks: Blocks, ranks: Ranks, origin: Origin, *, anew: bool
    ) -> None:
        self.directory, self.work, self.blocks, self.ranks = directory, work, blocks, ranks
        self.name = directory.name
        self.note_path = note_path(work, self.name)
        self.total_path = work / f"{self.name}.npz"
        # One rank looks: on network storage others may not see the newest yet.
        found: Found = ranks.broadcast(self._look(origin, anew) if ranks.is_first else None)
        self.path = work / f"{self.name}-{found.start:04d}-{ranks.rank:04d}.npz"
        self.images_there = sum(len(blocks.block(number)) for number in found.done)
        """Images that were done before this start."""
        self.done: list[int] = []
        """Blocks that this rank did."""
        self.open: dict[int, Rows] = {}
        """Results of its blocks whose shards are not complete."""
        self.sums: Sums = {}
        """Sums over the images of its blocks."""
        self.saved_at = time.monotonic()
        unfinished = [shard for shard in range(blocks.shards) if shard not in found.complete]
        own = [number for shard in unfinished[ranks.rank :: ranks.world_size] for number in blocks.of_shard(shard)]
        self.missing = [number for number in own if number not in found.done]
        """Blocks that this rank is to do."""
        self.steps: int = ranks.broadcast(max(ranks.gather(len(self.missing)), default=0))
        """Of the rank that has most to do."""
        for number in own:
            if number in found.open:
                self._keep(number, found.open[number])

    def _look(self, origin: Origin, anew: bool) -> Found:
        """The state that is there, by rank 0."""
        for directory in (self.work, self.directory):
            directory.mkdir(parents=True, exist_ok=True)
            for path in directory.glob(".*.partial"):
                path.unlink(missing_ok=True)
        self._check(origin, anew)
        if self.total_path.exists():
            return Found(0, set(range(self.blocks.count)), {}, set(range(self.blocks.shards)))
        done: set[int] = set()
        still_open: dict[int, Rows] = {}
        start = 0
        for path in self._state_paths():
            start = int(path.stem.split("-")[-2]) + 1
            for name, array in read_arrays(path).items():
                kind, _, rest = name.partition("/")
                if kind == "done":
                    done.update(array.tolist())
                elif kind == "open":
                    number, _, of = rest.partition("/")
                    still_open.setdefault(int(number), {})[of] = array
        complete = {
            shard
            for shard in range(self.blocks.shards)
            if done.issuperset(self.blocks.of_shard(shard)) and shard_path(self.directory, "keys", shard).exists()
        }
        return Found(start, done, still_open, complete)

    def _check(self, origin: Origin, anew: bool) -> None:
        """Notes the origin of the results, or compares it with the note that is there."""
        mine = json.loads(json.dumps(origin))
        machine = machine_of(self.ranks.device)
        theirs = read_note(self.note_path)
        if theirs is not None:
            if not anew:
                check_origin(theirs, mine, self.work.parent, self.name)
            different = " and ".join(sorted(name for name in mine if theirs.get(name) != mine[name]))
            if not different:
                if theirs.get(MACHINE) != machine and not self.total_path.exists():
                    print(
                        f"{self.name} began on {theirs.get(MACHINE)} and resumes on {machine}: results may differ in "
                        "their last bits from those of one machine",
                        flush=True,
                    )
                return
            print(f"discarding earlier results of {self.name}, which differ in {different}", flush=True)
        for path in (self.note_path, self.total_path, *self._state_paths(), *self.directory.glob("*.npy")):
            path.unlink(missing_ok=True)
        write_whole(self.note_path, json.dumps({**mine, MACHINE: machine}, indent=1).encode())

    def _state_paths(self) -> list[Path]:
        return sorted(self.work.glob(f"{self.name}-*.npz"))

    def add(self, number: int, rows: Rows) -> None:
        """Keeps the results of a block, after they were counted in `sums`."""
        self.done.append(number)
        self._keep(number, rows)

    def _keep(self, number: int, rows: Rows) -> None:
        """Takes a block's results, and writes their shard if they complete it."""
        self.open[number] = rows
        shard = number // self.blocks.per_shard
        numbers = self.blocks.of_shard(shard)
        if self.open.keys() >= set(numbers):
            parts = [self.open.pop(block) for block in numbers]
            whole = {name: np.concatenate([part[name] for part in parts]) for name in rows}
            write_shard(self.directory, self.blocks, shard, whole)

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved_at >= SAVE_EVERY_S

    def save(self) -> None:
        """Writes the state of this rank."""
        rows = {f"open/{number}/{name}": array for number, of in self.open.items() for name, array in of.items()}
        sums = {f"sums/{name}": array for name, array in self.sums.items()}
        write_arrays(self.path, {"done": np.array(self.done, dtype=np.int64), **rows, **sums})
        self.saved_at = time.monotonic()

    def finish(self) -> Sums:
        """The sums over all images, on rank 0, {} on the others. Every rank must have saved all that it was to do."""
        self.ranks.gather(None)  # all have saved
        totals: Sums = {}
        if self.ranks.is_first and self.total_path.exists():
            totals = read_arrays(self.total_path)
        elif self.ranks.is_first:
            states = [read_arrays(path) for path in self._state_paths()]
            done = np.sort(np.concatenate([state["done"] for state in states]))
            if not np.array_equal(done, np.arange(self.blocks.count)):
                raise UserError(
                    f"two runs have written to {self.directory.parent} together: remove the directory and start again"
                )
            for state in states:
                for name in (name for name in state if name.startswith("sums/")):
                    total = name.removeprefix("sums/")
                    totals[total] = totals[total] + state[name] if total in totals else state[name]
            write_arrays(self.total_path, totals)
        if self.ranks.is_first:
            for path in self._state_paths():
                path.unlink()
        self.ranks.broadcast(None)  # the shards are there
        return totals


def machine_of(device: torch.device) -> str:
    """What decides the rounding of results besides their origin."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name} with PyTorch {torch.__version__}"


def remove_state(work: Path) -> None:
    """Removes the states of all passes in `work`: first its name, so that a kill leaves no part to resume from."""
    removed = work.with_name(f".{work.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)  # of a start that was killed here
    work.rename(removed)
    shutil.rmtree(removed)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path) -> Arrays:
    """The arrays of such a file; UserError if it is damaged."""

    def read() -> Arrays:
        with np.load(path) as arrays:
            return dict(arrays)

    try:
        return retried(read, path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read {path} ({one_line(error)}): remove the directory {path.parent} and start again"
        ) from None
