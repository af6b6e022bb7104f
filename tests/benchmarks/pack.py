"""How fast packing is, against webdataset's ShardWriter, a plain copy, and pure decoding; how much memory it takes.

    python -m tests.benchmarks.pack [--quick] [--directory DIR]

packs drawn faces of 112x112 pixels from RecordIO. Contenders take turns in one run; ShardWriter and the decoder get the
encoded images from memory. `--directory` says on which disk; it is emptied of what was written there.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.ms1mv2 import Ms1mv2
from shard_tools.synthetic.drawing import draw_face
from shard_tools.synthetic.subjects import sample_pictures, sample_subject
from tests.benchmarks.ratios import measure, print_ratio, print_speeds
from tests.shard_tools.record_file import Item, write_records

DRAWN = 300
"""Different faces; each record has bytes of its own after the end of the JPEG."""

MEMORY = """
import re, resource, sys
from pathlib import Path
from shard_tools.pack import pack
from shard_tools.sources.ms1mv2 import Ms1mv2
rec, labels, out = map(Path, sys.argv[1:])
pack(Ms1mv2(rec=rec, labels=labels, by="key", male="1", female="0", out=out, workers=2))
# The high-water mark of getrusage would be that of the benchmark, from which this process was forked.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True, kw_only=True)
class PackBenchmark:
    """How fast packing is, against webdataset's ShardWriter, a plain copy, and pure decoding; its memory."""

    quick: bool = False
    """Few images and rounds: to see that it runs, not how fast."""
    directory: Path = Path(tempfile.gettempdir())
    """Where to write, some GB for a while."""


def main(config: PackBenchmark) -> None:
    """Runs the benchmark and prints its tables and ratios."""
    images, rounds, many = (4_000, 1, 20_000) if config.quick else (240_000, 3, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="benchmark-pack-", dir=config.directory) as scratch:
        root = Path(scratch)
        compare_speeds(root, images, rounds)
        compare_memory(root, many // 10, many)


def faces(size: int) -> list[bytes]:
    """Drawn faces as JPEGs."""
    encoded = []
    for number in itertools.count(1):
        subject = sample_subject(0, number)
        for picture in sample_pictures(0, subject):
            buffer = io.BytesIO()
            draw_face(subject, picture, size).save(buffer, "JPEG", quality=92)
            encoded.append(buffer.getvalue())
            if len(encoded) == DRAWN:
                return encoded
    raise AssertionError


def write_source(root: Path, count: int, size: int) -> Iterator[bytes]:
    """Writes `train.rec`, its idx and a list of labels, and yields the images in it."""
    drawn = faces(size)

    def image(number: int) -> bytes:
        return drawn[number % DRAWN] + b"%012d" % number

    write_records(root / "train.rec", (Item(number, number // 50, image(number)) for number in range(count)))
    with (root / "labels.txt").open("w") as file:
        file.writelines(f"{number} {number % 2}\n" for number in range(count))
    return map(image, range(count))


def source(root: Path, **options: object) -> Ms1mv2:
    """The source that `write_source` wrote, to be packed into `out`."""
    return Ms1mv2(
        rec=root / "train.rec",
        labels=root / "labels.txt",
        by="key",
        male="1",
        female="0",
        out=root / "out",
        val=0,
        test=0,
        **options,  # type: ignore[arg-type]
    )


def compare_speeds(root: Path, count: int, rounds: int) -> None:
    """Prints speeds and their ratios; leaves nothing in `root`."""
    import webdataset

    images = list(write_source(root, count, 112))

    def clear() -> None:
        for name in ("out", "webdataset", "copy"):
            shutil.rmtree(root / name, ignore_errors=True)

    def packed(**options: object) -> int:
        with redirect_stdout(io.StringIO()):
            pack(source(root, **options))
        return count

    def shard_writer() -> int:
        (root / "webdataset").mkdir()
        with webdataset.ShardWriter(str(root / "webdataset" / "%06d.tar"), maxsize=64e6, verbose=0) as writer:
            for number, image in enumerate(images):
                labels = b'{"age":-1.0,"gender":%d,"group":"","row":%d,"source":"%08d","subject":""}' % (
                    number % 2,
                    number,
                    number,
                )
                writer.write({"__key__": f"{number:08d}", "jpg": image, "json": labels})
        return count

    def copy() -> int:
        (root / "copy").mkdir()
        for path in read_manifest(root / "tars").shard_paths("train"):
            with path.open("rb") as original, (root / "copy" / path.name).open("wb") as file:
                shutil.copyfileobj(original, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())  # as packing does
        return count

    def decode() -> int:
        for image in images:
            with Image.open(io.BytesIO(image)) as opened:
                opened.load()
        return count

    packed(workers=2, decode=False)
    (root / "out").rename(root / "tars")
    speeds = measure(
        {
            "pack, 1 worker, no decoding": lambda: packed(workers=1, decode=False),
            "copy of its tars": copy,
            "webdataset.ShardWriter": shard_writer,
            "pack, 2 workers, no decoding": lambda: packed(workers=2, decode=False),
            "pack, 1 worker, decoding": lambda: packed(workers=1),
            "Pillow decoding alone": decode,
        },
        rounds,
        clear,
    )
    size = sum(map(len, images)) / count
    print_speeds(f"{count:,} images of 112x112 pixels, {size:,.0f} bytes on average", "images/s", speeds)
    one, copied, written, two, checked, decoded = speeds.values()
    print_ratio("pack_over_shardwriter", one, written, "at least 3")
    print_ratio("pack_over_copy", one, copied, "at least 0.25")
    print_ratio("two_workers_over_one", two, one, "at least 1.7")
    print_ratio("pack_over_decoding", checked, decoded, "at least 0.8")
    shutil.rmtree(root / "tars")


def compare_memory(root: Path, few: int, many: int) -> None:
    """Prints the peak resident memory of the processes that pack few and many records."""
    peaks = []
    for count in (few, many):
        for _ in write_source(root, count, 32):
            pass
        arguments = [root / "train.rec", root / "labels.txt", root / "out"]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
        )
        peaks.append([int(line) / 1e3 for line in done.stdout.splitlines()[-2:]])
        print(f"{count:,} records: peak {peaks[-1][0]:.0f} MB in the parent, {peaks[-1][1]:.0f} MB in a worker")
        shutil.rmtree(root / "out")
    print_ratio("worker_memory_over_300_MB", [peaks[1][1]], [300.0], "at most 1")
    print_ratio("parent_memory_over_300_MB", [peaks[1][0]], [300.0], "at most 1")


if __name__ == "__main__":
    main(tyro.cli(PackBenchmark, config=(tyro.conf.FlagCreatePairsOff,)))
