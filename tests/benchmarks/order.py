"""What the order of an epoch costs, and what storage sees of it: time, memory, and bytes read at 1, 4, 16, 64 ranks.

    python -m tests.benchmarks.order [--quick]

Time and memory are of a process of its own for each size, which works out a whole epoch of one rank alone: the worst
case. Bytes are counted where they are read, by every rank in turn, from real shards of small images.
"""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from hpcgender.data.order import LANES, Order, chunk_length, rank_positions
from hpcgender.data.shards import ShardReader, Window
from shard_tools.manifest import Manifest, read_manifest
from shard_tools.pack import pack
from shard_tools.sources.morph import Morph
from tests.benchmarks.ratios import print_ratio

MS1MV2 = 5_822_653
SAMPLE_BYTES = 7_900
"""Of MS1MV2, labels and tar headers counted."""

EPOCH = """
import json, re, sys, time
from pathlib import Path
import numpy as np
from hpcgender.data.order import Order, chunk_length
from hpcgender.data.sampling import class_targets, draw_samples

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

samples, sampling, everything = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
gender = np.resize(np.array([0, 1, 1], dtype=np.int8), samples)
counts = [int((gender == 0).sum()), int((gender == 1).sum())]
before, begin = peak(), time.perf_counter()
drawn = None if sampling == "none" else draw_samples(gender, class_targets(counts, sampling), 0, 0)
order = Order(samples, chunk_length(samples, 7900, 256e6), 0, 0, drawn=drawn)
made = time.perf_counter() - begin
if everything:
    for start in range(0, len(order), 1 << 16):
        order.at(np.arange(start, min(start + (1 << 16), len(order))))
print(json.dumps([made, time.perf_counter() - begin, before, peak()]))
"""


@dataclass(frozen=True, kw_only=True)
class OrderBenchmark:
    """What the order of an epoch costs, and what storage sees of it."""

    quick: bool = False
    """Few samples: to see that it runs, not how fast."""


def main(config: OrderBenchmark) -> None:
    sizes = (100_000, 1_000_000) if config.quick else (MS1MV2, 10**8)
    table = Table(title="the order of an epoch, one rank alone", title_justify="left")
    for column in ("samples", "sampling", "made in s", "and walked through in s", "peak MB", "before it, MB"):
        table.add_column(column, justify="right")
    seconds, memory = [], []
    for samples, sampling in itertools.product(sizes, ("none", "oversample")):
        command = [sys.executable, "-c", EPOCH, str(samples), sampling, str(samples == sizes[0])]
        made, walked, before, peak = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        through = f"{walked:.2f}" if samples == sizes[0] else ""
        table.add_row(f"{samples:,}", sampling, f"{made:.2f}", through, f"{peak:.0f}", f"{before:.0f}")
        if samples == sizes[0]:
            seconds.append(walked)
            memory.append(peak)
    Console(width=120).print(table)
    with tempfile.TemporaryDirectory(prefix="benchmark-order-") as root:
        ratios = list(count_bytes(packed(Path(root), 4_000 if config.quick else 100_000)))
    for world_size, ratio in ratios:
        print_ratio(f"bytes_read_over_shards_{world_size}_ranks", [ratio], [1.0], "at most 1")
    print_ratio("seconds_of_ms1mv2_over_2", seconds, [2.0] * len(seconds), "at most 1")
    print_ratio("megabytes_of_ms1mv2_over_300", memory, [300.0] * len(memory), "at most 1")


def packed(root: Path, count: int) -> Manifest:
    """A data set of tiny images."""
    images = root / "images"
    images.mkdir()
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(file, "JPEG")
    for number in range(count):
        (images / f"{number:06d}_00{'MF'[number % 2]}20.jpg").write_bytes(file.getvalue() + number.to_bytes(4, "big"))
    with redirect_stdout(io.StringIO()):
        pack(Morph(images=images, out=root / "out", val=0, test=0, shard_mb=16, decode=False))
    return read_manifest(root / "out")


def bytes_held(window: Window) -> int:
    """Bytes of the pieces that a window has in memory."""
    read_ahead = (reading.result() for reading in list(window.reading) if reading.done())
    return sum(len(run.bytes) for held in (window.pieces, *read_ahead) for runs in held.values() for run in runs)


def count_bytes(manifest: Manifest) -> Iterator[tuple[int, float]]:
    """Prints what all ranks of a world read in an epoch, and yields its ratio to the size of the shards."""
    index, paths = manifest.index("train"), manifest.shard_paths("train")
    size = sum(path.stat().st_size for path in paths)
    chunk = chunk_length(len(index), size / len(index), 256e6)
    order = Order(len(index), chunk, 0, 0)
    table = Table(title=f"{len(index):,} samples in {size / 1e6:.0f} MB of shards, an epoch", title_justify="left")
    for column in ("ranks", "bytes read by all", "over the shards' bytes", "reads", "most MB held by a rank"):
        table.add_column(column, justify="right")
    for world_size in (1, 4, 16, 64):
        total = held = reads = 0
        for rank in range(world_size):
            with closing(ShardReader(index, paths)) as reader, closing(Window(reader, order)) as window:
                for step in range(-(-len(index) // (LANES * 4))):
                    places = order.at(rank_positions(step, len(index), LANES * 4, rank, world_size, "keep"))
                    window.read_ahead(places)
                    held = max(held, bytes_held(window))
                    window.take(places)
                    reads += int(places.last.sum())
                total += reader.bytes_read
        table.add_row(f"{world_size}", f"{total:,}", f"{total / size:.3f}", f"{reads:,}", f"{held / 1e6:.1f}")
        yield world_size, total / size
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(OrderBenchmark))
