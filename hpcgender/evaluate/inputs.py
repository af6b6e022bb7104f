"""What evaluation and heat maps begin with: a checkpoint, a split, and the ranks that share its images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.checkpoint import Trained, load_trained
from hpcgender.commands.evaluate import SplitConfig
from hpcgender.data.loader import Batch, Loader, evaluation_loader
from hpcgender.data.order import Samples
from hpcgender.distributed import Ranks, process_group, redirect_output
from shard_tools.base.errors import UserError
from shard_tools.manifest import Manifest, read_manifest

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Inputs:
    """This rank's view of them."""

    manifest: Manifest
    ranks: Ranks
    trained: Trained
    loader: Loader


@contextmanager
def open_inputs(config: SplitConfig) -> Iterator[Inputs]:
    """Joins the ranks and opens what `config` names; UserError if it is not there or does not fit together."""
    config.check()
    manifest = read_manifest(config.data)
    with process_group() as ranks:
        redirect_output(config.out_dir / "logs", ranks.rank)
        trained = load_trained(config.checkpoint, ranks.device, manifest.classes)
        loader = evaluation_loader(
            config,
            manifest,
            config.split,
            batch_size=config.batch_size * ranks.world_size,
            image_size=trained.image_size,
            ranks=ranks,
        )
        with closing(loader):
            yield Inputs(manifest, ranks, trained, loader)


@contextmanager
def other_split(inputs: Inputs, config: SplitConfig, split: str) -> Iterator[Inputs]:
    """The same with the images of another split of the data."""
    loader = evaluation_loader(
        config,
        inputs.manifest,
        split,
        batch_size=config.batch_size * inputs.ranks.world_size,
        image_size=inputs.trained.image_size,
        ranks=inputs.ranks,
    )
    with closing(loader):
        yield replace(inputs, loader=loader)


def of_batches(inputs: Inputs, work: Callable[[Batch], Result]) -> Iterator[tuple[Batch, Result]]:
    """This rank's batches of the split, in turn, and what `work` makes of each, in inference mode.

    How sums within a network are rounded depends on the number of threads that share them. So without a GPU each batch
    has one thread, and as many batches are worked on at once as PyTorch has threads: results are the same to the last
    bit however many threads, processes and machines there are. `work` must be safe to use from several threads.
    """
    batches = inputs.loader.epoch(0)
    if inputs.ranks.device.type == "cuda":
        with torch.inference_mode():
            for batch in batches:
                yield batch, work(batch)
        return

    def alone(batch: Batch) -> Result:
        with torch.inference_mode():
            return work(batch)

    threads = torch.get_num_threads()
    under_way: deque[tuple[Batch, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "network", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for batch in batches:
                under_way.append((batch, pool.submit(alone, batch)))
                if len(under_way) > threads:
                    first, result = under_way.popleft()
                    yield first, result.result()
            for first, result in under_way:
                yield first, result.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # those of the pool have set it for all that come after them


def gather_in_order(inputs: Inputs, samples: list[Samples], results: list[Floats]) -> Floats | None:
    """All ranks' results by sample number, (samples of the split, ...), on rank 0; None on the others.

    `samples` and `results` are this rank's, a list item a batch. Every sample must be there exactly once, but for
    those that do not decode: their rows are nan, and rank 0 says how many they are.
    """
    part = (np.concatenate(samples), np.concatenate(results)) if samples else None
    parts = inputs.ranks.gather((part, inputs.loader.left_out))
    if not inputs.ranks.is_first:
        return None
    present = [part for part, _ in parts if part is not None]
    if not present:
        raise UserError(f"no image of {inputs.loader.split.name} in {inputs.manifest.root} decodes: pack it again")
    bad = sum(left_out for _, left_out in parts)
    numbers = np.concatenate([numbers for numbers, _ in present])
    count = len(inputs.loader.index)
    once = len(np.unique(numbers)) == len(numbers) == count - bad
    assert once, "an image was evaluated twice or not at all"
    values = np.full((count, *present[0][1].shape[1:]), np.nan, dtype=np.float32)
    for of_rank, result in present:
        values[of_rank] = result
    if bad:
        print(f"{bad} of {count} images do not decode and are left out: the ranks' logs name them")
    return values
