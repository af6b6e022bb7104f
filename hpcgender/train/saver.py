"""Writes a run's checkpoints in the background, keeps the newest, and finds the one to resume from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from hpcgender.checkpoint import UnreadableError, read_verified, save_checkpoint
from hpcgender.run_directory import BEST, newest_first
from shard_tools.base.errors import StorageError, UserError
from shard_tools.base.files import sync_directory
from shard_tools.base.storage import unwritable


class Saver:
    """Writes a run's checkpoints into `directory`: `step-<n>.pt`, the newest `keep` of them, and `best.pt`.

    `last.pt` is a symbolic link to the newest. Only one process of a run may have a Saver. From the first save on, it
    holds one copy of the saved state in memory (pinned memory if the state is on a GPU).
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        assert keep >= 1
        self.directory = directory
        self.keep = keep
        self._copy: Any = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for partial in directory.glob(".*.partial"):  # of a process that was killed
                partial.unlink()
        except OSError as error:
            raise unwritable(error, directory) from None

    def save(self, step: int, weights: Mapping[str, Any], state: Mapping[str, Any], *, best: bool = False) -> None:
        """Copies the content and returns; a thread writes it as the checkpoint of `step`, replacing an existing one.

        `weights` is what a trained model needs, and is also written to `best.pt` if `best`; `state` is what else is
        needed to resume. Both may hold tensors, numbers, strings, None, and mappings, lists and tuples of these;
        TypeError for anything else, which `weights_only=True` could not load. They may change as soon as this returns.

        Waits for the previous write, and raises its UserError if it failed; older checkpoints are then still intact.
        """
        assert not weights.keys() & state.keys()
        self.wait()
        self._copy = _copied({"weights": dict(weights), "state": dict(state)}, self._copy, "")
        # Copies from a GPU are asynchronous; later kernels of the stream change the sources after them.
        on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        copied = torch.cuda.current_stream().record_event() if on_gpu else None
        self._writing = self._thread.submit(self._write, step, best, copied)

    def wait(self) -> None:
        """Waits until nothing is being written; raises the last write's UserError, once, if that failed."""
        if self._writing:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Waits as `wait` does and ends the thread; nothing can be saved afterwards."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except (UserError, StorageError) as failed:
            if error is None:
                raise
            print(f"hpcgender: {failed}", file=sys.stderr)  # beside the error that ends the run

    def _write(self, step: int, best: bool, copied: torch.cuda.Event | None) -> None:
        if copied:
            copied.synchronize()
        weights, state = self._copy["weights"], self._copy["state"]
        if best:  # first: if killed in between, the run resumes from before and finds this best again
            save_checkpoint(self.directory / BEST, weights)
        path = self.directory / f"step-{step:08d}.pt"
        save_checkpoint(path, {**weights, **state})
        try:
            link = self.directory / ".last.pt.partial"
            link.symlink_to(path.name)
            link.replace(self.directory / "last.pt")
            sync_directory(self.directory)  # before those that it named are removed
            # Checkpoints of later steps are damaged: otherwise the run would have resumed from them.
            kept = [other for other in newest_first(self.directory) if other <= path][: self.keep]
            for other in newest_first(self.directory):
                if other not in kept:
                    other.unlink()
        except OSError as error:
            raise unwritable(error, self.directory, f"{path.name} is whole") from None


def latest(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint and its content, tensors on the CPU; None if there is no checkpoint.

    Prints a line on stderr for each damaged one that is skipped. UserError if all are damaged.
    """
    paths = newest_first(directory)
    for path, before in pairwise((*paths, None)):
        assert path
        try:
            return path, read_verified(path)
        except UnreadableError as error:
            instead = f": using {before.name} instead" if before else ""
            print(f"hpcgender: {path} {error}{instead}", file=sys.stderr, flush=True)
    if paths:
        raise UserError(
            f"no checkpoint in {directory} can be read: restore one, or start a new run with another --name"
        )
    return None


def _copied(value: Any, before: Any, name: str) -> Any:
    """A copy of nested content with tensors on the CPU, reusing the memory of the copy `before` where shapes fit."""
    if isinstance(value, torch.Tensor):
        fits = isinstance(before, torch.Tensor) and (before.shape, before.dtype) == (value.shape, value.dtype)
        copy = before if fits else torch.empty_like(value, device="cpu", pin_memory=value.is_cuda, requires_grad=False)
        return copy.copy_(value.detach(), non_blocking=True)
    if isinstance(value, Mapping):
        named = before if isinstance(before, dict) else {}
        return {key: _copied(item, named.get(key), f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        placed = before if isinstance(before, (list, tuple)) and len(before) == len(value) else [None] * len(value)
        items = [_copied(item, placed[place], f"{name}.{place}") for place, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {name[1:]}")
