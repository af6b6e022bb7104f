"""Hostile and awkward input: `python -m tests.hostile [--minutes M] [--inputs N] [--seed S]`.

Real small files, which the program itself makes, are damaged, edited and rebuilt at random, and given to the real
commands. Each must end in bounded time and memory (tests/hostile/workers.py) with a result that is right, or with one
line and exit code 2 or 1; code in an input must not run. The table counts what became of them; for what did not end so
it names the number that repeats it: `python -m tests.hostile --seed S --repeat KIND/NUMBER`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.forked import LIBRARIES
from tests.hostile import archives, checkpoints, images, schedulers, texts
from tests.hostile.base import Base, make
from tests.hostile.workers import MEMORY, REFUSED, RIGHT, SECONDS, Result, tried

Attempt = Callable[[Base, Path, random.Random], Counter[str]]
KINDS: dict[str, Attempt] = {
    "images, packed": images.packed_images,
    "images, predicted": images.predicted,
    "uploads": images.uploaded,
    "RecordIO": archives.recordio,
    "tars": archives.tar,
    "data sets": archives.data_set,
    "tables": texts.table,
    "TOML": texts.toml,
    "checkpoints": checkpoints.checkpoint,
    "weights": checkpoints.weights,
    "ONNX": checkpoints.onnx,
    "records of runs": texts.records,
    "names and overrides": texts.launched,
    "schedulers' answers": schedulers.answered,
}
AT_ONCE = {"images, packed": images.AT_ONCE, "images, predicted": images.AT_ONCE}
"""Inputs of one attempt, where they are several."""


def attempted(base: Base, kind: str, seed: int) -> Callable[[int], Counter[str]]:
    """The attempt of a number."""

    def attempt(number: int) -> Counter[str]:
        work = base.work / f"{os.getpid()}-{number}"
        work.mkdir()
        os.chdir(work)
        try:
            counts = KINDS[kind](base, work, random.Random(f"{seed}/{kind}/{number}"))
            base.check_canary()
            return counts
        finally:
            os.chdir(base.root)
            shutil.rmtree(work, ignore_errors=True)

    return attempt


def made(root: Path) -> Base:
    """The base files, made by a process of its own: this one must not have computed anything when it forks."""
    if not (pid := os.fork()):
        code = 1
        try:
            make(root)
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        sys.exit("the base files cannot be made")
    return Base(root)


def campaign(base: Base, seed: int, inputs: int, end: float) -> Iterator[tuple[str, Result]]:
    """What became of the inputs of each kind, the kinds in turn."""
    share = -(-inputs // len(KINDS))
    for place, kind in enumerate(KINDS):
        count = -(-share // AT_ONCE.get(kind, 1))
        until = time.monotonic() + (end - time.monotonic()) / (len(KINDS) - place)
        for result in tried(iter(range(count)), attempted(base, kind, seed), until):
            yield kind, result


def main() -> int:
    """Prints the table, and each failure; 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="time for all kinds together")
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", default="", metavar="KIND/NUMBER", help="one attempt again, alone")
    options = parser.parse_args()
    for library in (*LIBRARIES, "onnxruntime", "streamlit"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as directory:
        base = made(Path(directory).resolve() / "base")
        if options.repeat:
            kind, _, number = options.repeat.rpartition("/")
            (one,) = tried(iter([int(number)]), attempted(base, kind, options.seed), math.inf)
            print(one.fault or f"{one.right} right, {one.refused} refused, {one.seconds:.1f} s, {one.bytes >> 20} MB")
            return 1 if one.fault else 0
        found: dict[str, list[Result]] = {kind: [] for kind in KINDS}
        for kind, result in campaign(base, options.seed, options.inputs, start + 60 * options.minutes):
            found[kind].append(result)
            if result.fault:
                print(f"--seed {options.seed} --repeat '{kind}/{result.number}': {result.fault}\n", flush=True)
    print(f"{'kind':<22}{'inputs':>8}{'right':>8}{'refused':>9}{'crashed':>9}{'slowest':>9}{'memory':>9}")
    totals: Counter[str] = Counter()
    for kind, results in found.items():
        row = Counter(
            right=sum(one.right for one in results),
            refused=sum(one.refused for one in results),
            crashed=sum(bool(one.fault) for one in results),
        )
        totals += row
        slowest = max((one.seconds / AT_ONCE.get(kind, 1) for one in results), default=0)
        most = max((one.bytes for one in results), default=0)
        print(f"{kind:<22}{sum(row.values()):>8}{row[RIGHT]:>8}{row[REFUSED]:>9}{row['crashed']:>9}"
              f"{slowest:>7.1f} s{most >> 20:>6} MB")  # fmt: skip
    print(
        f"{'all':<22}{sum(totals.values()):>8}{totals[RIGHT]:>8}{totals[REFUSED]:>9}{totals['crashed']:>9}"
        f"\nbounds: {SECONDS:.0f} s of CPU and {MEMORY >> 20} MB for each; {time.monotonic() - start:.0f} s in all"
    )
    return 1 if totals["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
