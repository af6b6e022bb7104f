"""One pass over images: each block loaded, computed and kept, until all are done or a stop is requested."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.loader import REMEDY, STAGING_TIMEOUT, Batch
from hpcgender.data.order import Samples
from hpcgender.inference.blocks import Blocks, Rows
from hpcgender.inference.progress import Progress, Sums
from hpcgender.inference.session import Session
from shard_tools.base.errors import UserError
from shard_tools.base.progress import progress as progress_of

Item = TypeVar("Item")
Result = TypeVar("Result")


def threads_for(device: torch.device) -> int:
    """How many threads compute a batch each: as many as PyTorch has on a CPU, 0 on a GPU, for `compute`.

    How sums in a network are rounded depends on the number of threads that share them. So on a CPU each batch is
    computed by one thread: results are the same to the last bit for any number of threads, processes and nodes, also
    where there is a GPU that is not used.
    """
    return torch.get_num_threads() if device.type == "cpu" else 0


def compute(batches: Iterable[Item], work: Callable[[Item], Result], *, threads: int) -> Iterator[tuple[Item, Result]]:
    """The batches in turn with the result of `work` for each, computed without gradients, by so many threads.

    Each batch is computed by one of them, and PyTorch shares no sum between several. `work` must be safe to call from
    several threads. `threads` 0: in the caller's thread, where PyTorch shares sums as it likes.
    """
    if not threads:
        for batch in batches:
            with torch.no_grad():
                result = work(batch)
            yield batch, result
        return

    def alone(batch: Item) -> Result:
        with torch.no_grad():
            return work(batch)

    before = torch.get_num_threads()
    computing: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "network", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for batch in batches:
                computing.append((batch, pool.submit(alone, batch)))
                if len(computing) > threads:
                    first, future = computing.popleft()
                    yield first, future.result()
            for first, future in computing:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # the pool's threads have changed it for all threads that start later


def blocks_of(session: Session[Any], split: str, samples: Samples | None = None) -> Blocks:
    """The blocks of some images of a split, ascending; of all without `samples`."""
    keys = session.manifest.index(split)["key"]
    if samples is None:
        samples = np.arange(len(keys))
    return Blocks(samples, keys[samples], session.config.batch_size)


@contextmanager
def loaded(session: Session[Any], split: str, samples: Samples, *, stage: bool = False) -> Iterator[Generator[Batch]]:
    """Batches of these images, ascending, for this rank alone; those that do not decode are left out.

    `stage`: they are so many that shards are worth copying to --stage-to.
    """
    if not len(samples):
        nothing: tuple[Batch, ...] = ()
        yield (batch for batch in nothing)
        return
    loader = EvaluationLoader(
        session.config if stage else replace(session.config, stage_to=None),
        session.manifest,
        split,
        batch_size=session.config.batch_size,
        image_size=session.trained.image_size,
        ranks=replace(session.ranks, world_size=1, rank=0),
        samples=samples,
    )
    with closing(loader), closing(loader.epoch(0)) as batches:
        yield batches


def run_pass(
    session: Session[Any],
    split: str,
    progress: Progress,
    shapes: Mapping[str, tuple[int, ...]],
    work: Callable[[Batch], Rows],
    *,
    count: Callable[[Batch, Rows], None] = lambda batch, rows: None,
    sums: Callable[[], Sums] = dict,
    stage: bool = True,
) -> bool:
    """Does what is missing of a pass; False if a stop was requested before the end. What is done is saved.

    `work` returns the results of a batch by name, float32 (n, *shapes[name]) each, and may be called from several
    threads; what it leaves out, and images that do not decode, are nan. `count` is called with each batch and its
    results in this thread; `sums` returns the integers that it summed over all images so far.
    """
    blocks, ranks = progress.blocks, session.ranks
    pending = deque(progress.missing)

    def keep(batch: Batch | None, results: Rows) -> None:
        number = pending.popleft()
        samples = blocks.block(number)
        rows = {name: np.full((len(samples), *shape), np.nan, dtype=np.float32) for name, shape in shapes.items()}
        if batch:
            places = np.searchsorted(samples, batch.samples)
            for name, values in results.items():
                rows[name][places] = values
        progress.add(number, rows)

    own = [blocks.block(number) for number in progress.missing]
    left = len(blocks.samples) - progress.images_there
    if ranks.is_first and progress.images_there and left:
        print(f"resuming {progress.name}: {progress.images_there} of {len(blocks.samples)} images are done", flush=True)
    display = progress_of(progress.name, left) if ranks.is_first else nullcontext(lambda images: None)
    with (
        loaded(session, split, np.concatenate(own) if own else np.empty(0, dtype=np.int64), stage=stage) as batches,
        display as advance,
    ):
        if stage and session.config.stage_to:
            ranks.barrier(STAGING_TIMEOUT)
        wanted = session.stop.until_requested(batches, progress.steps, ranks)
        for batch, results in compute(wanted, work, threads=threads_for(ranks.device)):
            while blocks.place(batch.samples[:1])[0] // blocks.size != pending[0]:
                keep(None, {})  # no image of a block before it decodes
            count(batch, results)
            keep(batch, results)
            if progress.is_due:
                progress.sums = sums()
                progress.save()
            advance(len(batch.samples) * ranks.world_size)
    while pending and not session.stop.reason:
        keep(None, {})
    if progress.done:
        progress.sums = sums()
        progress.save()
    return not session.stop.reason


def check_bad(session: Session[Any], split: str, bad: npt.NDArray[np.bool_]) -> int:
    """How many images of a split do not decode, given which (n,); rank 0 prints it if there are any.

    UserError if they are more than --max-bad allows, or all.
    """
    count, total = int(np.count_nonzero(bad)), len(bad)
    if count == total:
        raise UserError(f"no image of {split} in {session.manifest.root} decodes: pack it again with --quality 95")
    if count > math.ceil(session.config.max_bad * total):
        raise UserError(f"{count} of {total} images do not decode, more than --max-bad allows: {REMEDY}")
    if count and session.ranks.is_first:
        print(f"{count} of {total} images do not decode and are left out: the ranks' logs name them", flush=True)
    return count
