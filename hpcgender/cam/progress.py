"""How far a pass over images is: kept in files, so that killed and started again it does only what is missing.

Each rank of each start has a file of its own, `work/<pass>-<start>-<rank>.npz`: which batches it did, the results of
those whose shard is not complete yet, and sums over all of its images. It is written anew every few seconds, and when
the pass is asked to stop. Sums are of integers, so it does not matter which rank did what, or in which order. At the
end they become one file, `work/<pass>.npz`, which says that the pass is complete.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpcgender.cam.shards import Plan, Rows, shard_path, write_shard
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import write_whole

Arrays = dict[str, npt.NDArray[Any]]
Sums = dict[str, npt.NDArray[np.int64]]

SAVE_EVERY_S = 15.0
"""Seconds of work that a kill may cost."""


class Found(NamedTuple):
    """What earlier starts left."""

    start: int
    """Number of this one."""
    done: set[int]
    """Batches."""
    opened: dict[int, Rows]
    """Results of the batches whose shards are not complete."""
    complete: set[int]
    """Shards."""


class Progress:
    """What this rank is to do of a pass, and has done. The shards of results go into `folder`.

    `about` is what decides the results. UserError if those that are there are of something else, unless they may then
    be removed: `anew`. Every rank must make it, and finish it, at once.
    """

    def __init__(self, folder: Path, plan: Plan, ranks: Ranks, about: dict[str, Any], *, anew: bool = False) -> None:
        self.folder, self.plan, self.ranks = folder, plan, ranks
        self.work, self.name = folder.parent / "work", folder.name
        self.total_path = self.work / f"{self.name}.npz"
        # One rank looks: on network storage others may not see the newest yet.
        found: Found = ranks.broadcast(self._look(about, anew) if ranks.is_first else None)
        self.path = self.work / f"{self.name}-{found.start:04d}-{ranks.rank:04d}.npz"
        self.images_there = sum(len(plan.batch(number)) for number in found.done)
        """Images that were done before this start."""
        self.done: list[int] = []
        """Batches that this rank did."""
        self.opened: dict[int, Rows] = {}
        """Results of its batches whose shards are not complete."""
        self.sums: Sums = {}
        """Sums over the images of its batches."""
        self.saved_at = time.monotonic()
        unfinished = [shard for shard in range(plan.shards) if shard not in found.complete]
        own = [number for shard in unfinished[ranks.rank :: ranks.world_size] for number in plan.batches_of(shard)]
        self.missing = [number for number in own if number not in found.done]
        """Batches that this rank is to do."""
        self.steps: int = ranks.broadcast(max(ranks.gather(len(self.missing)), default=0))
        """Of the rank that has most to do."""
        for number in own:
            if number in found.opened:
                self._open(number, found.opened[number])

    def _look(self, about: dict[str, Any], anew: bool) -> Found:
        """What is there, by rank 0."""
        for folder in (self.work, self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(".*.partial"):
                path.unlink(missing_ok=True)
        self._check(about, anew)
        if self.total_path.exists():
            return Found(0, set(range(self.plan.batches)), {}, set(range(self.plan.shards)))
        done: set[int] = set()
        opened: dict[int, Rows] = {}
        start = 0
        for path in self._state_paths():
            start = int(path.stem.split("-")[-2]) + 1
            for name, array in read_arrays(path).items():
                kind, _, rest = name.partition("/")
                if kind == "done":
                    done.update(array.tolist())
                elif kind == "open":
                    number, _, of = rest.partition("/")
                    opened.setdefault(int(number), {})[of] = array
        complete = {
            shard
            for shard in range(self.plan.shards)
            if done.issuperset(self.plan.batches_of(shard)) and shard_path(self.folder, "keys", shard).exists()
        }
        return Found(start, done, opened, complete)

    def _check(self, about: dict[str, Any], anew: bool) -> None:
        """Notes what the pass is of, or compares it with the note that is there."""
        note, mine = self.work / f"{self.name}.json", json.loads(json.dumps(about))
        theirs = json.loads(note.read_bytes()) if note.exists() else None
        if theirs == mine:
            return
        if theirs is not None and not anew:
            different = " and ".join(sorted(name for name in mine if theirs.get(name) != mine[name]))
            raise UserError(
                f"{self.folder.parent} holds heat maps of another {different}: give another --out, or remove it"
            )
        for path in (note, self.total_path, *self._state_paths(), *self.folder.glob("*.npy")):
            path.unlink(missing_ok=True)
        write_whole(note, json.dumps(mine, indent=1).encode())

    def _state_paths(self) -> list[Path]:
        return sorted(self.work.glob(f"{self.name}-*.npz"))

    def add(self, number: int, rows: Rows) -> None:
        """Keeps the results of a batch, after they were counted in `sums`."""
        self.done.append(number)
        self._open(number, rows)

    def _open(self, number: int, rows: Rows) -> None:
        """Takes a batch's results, and writes their shard if they complete it."""
        self.opened[number] = rows
        batches = self.plan.batches_of(number // self.plan.batches_per_shard)
        if self.opened.keys() >= set(batches):
            parts = [self.opened.pop(batch) for batch in batches]
            whole = {name: np.concatenate([part[name] for part in parts]) for name in rows}
            write_shard(self.folder, self.plan, number // self.plan.batches_per_shard, whole)

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved_at >= SAVE_EVERY_S

    def save(self) -> None:
        """Writes what this rank has done: whoever goes on has it."""
        rows = {f"open/{number}/{name}": array for number, of in self.opened.items() for name, array in of.items()}
        sums = {f"sums/{name}": array for name, array in self.sums.items()}
        write_arrays(self.path, {"done": np.array(self.done, dtype=np.int64), **rows, **sums})
        self.saved_at = time.monotonic()

    def finish(self) -> Sums:
        """The sums over all images, on rank 0, {} on the others; every rank must have saved all that it was to do."""
        self.ranks.gather(None)  # all have saved
        totals: Sums = {}
        if self.ranks.is_first and self.total_path.exists():
            totals = read_arrays(self.total_path)
        elif self.ranks.is_first:
            states = [read_arrays(path) for path in self._state_paths()]
            done = np.sort(np.concatenate([state["done"] for state in states]))
            if not np.array_equal(done, np.arange(self.plan.batches)):
                raise UserError(
                    f"two runs have written to {self.folder.parent} at once: remove the directory and begin anew"
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


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path) -> Arrays:
    """The arrays of such a file; UserError if it is damaged."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read {path} ({one_line(error)}): remove the directory {path.parent.parent} and begin anew"
        ) from None
