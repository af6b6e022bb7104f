"""A campaign of faults: `python -m tests.faults [--minutes M] [--faults N] [--seed S]`.

Commands are killed, stopped and refused their disk at random moments, and given again until they end. What is left must
then be what an undisturbed run leaves, to the last bit where that is promised; nothing may hang (the bounds stand in
tests/faults/processes.py), no process may outlive its command, and only one that was killed may print a traceback.
The table counts the faults that hit: that met a command that still ran, or that read or wrote what was broken. Those
were survived or lost; `--repeat NUMBER` with the same seed and options tries one of them again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.faults.injuries import FAULTS, Attempt, Fault
from tests.faults.preload import Shim
from tests.faults.processes import start
from tests.faults.scenarios import Scenario, Undisturbed, filled, make, scenarios, undisturbed
from tests.forked import import_libraries
from tests.violations import ViolationError

Counts = Counter[tuple[str, str]]
"""By scenario and fault."""


class Campaign:
    """The scenarios, with what they leave undisturbed."""

    def __init__(self, root: Path, light: bool) -> None:
        self.root = root
        self.data = root / "base" / "data"
        make(root / "base")
        self.scenarios = scenarios(root / "base")
        self.drawn_from = [one for one in self.scenarios if one.light or not light]
        self.whole: dict[tuple[str, bool], Undisturbed] = {}

    def undisturbed(self, scenario: Scenario, preloaded: bool) -> Undisturbed:
        """How a scenario ends if nothing happens, tried once with the shim and once without."""
        key = scenario.name, preloaded
        if key not in self.whole:
            cwd = self.root / ("preloaded" if preloaded else "whole") / scenario.name.replace(" ", "-")
            cwd.mkdir(parents=True)
            self.whole[key] = undisturbed(scenario, cwd, self.data, Shim(self.root) if preloaded else None)
        return self.whole[key]

    def drawn(self, draw: random.Random, on_ranks: bool) -> tuple[Scenario, Fault]:
        """A scenario, and a fault that fits it."""
        scenario = draw.choice([one for one in self.scenarios if one.ranks > 1] if on_ranks else self.drawn_from)
        return scenario, draw.choice([fault for fault in FAULTS if fault.fits(scenario)])

    def attempt(self, scenario: Scenario, fault: Fault, draw: random.Random, cwd: Path) -> bool:
        """Disturbs a scenario once or twice, brings it to its end, and compares; whether the fault hit.

        Raises ViolationError.
        """
        whole = self.undisturbed(scenario, fault.preloaded)
        data = self.data
        if scenario.splits and fault.name.startswith("shard"):
            data = cwd.parent / "data"
            shutil.copytree(self.data, data)
        disturbed, hit = draw.randrange(len(scenario.steps)), False
        for number, step in enumerate(scenario.steps):
            code = -1
            if number == disturbed:
                for again in range(draw.choice((1, 1, 2))):
                    attempt = Attempt(scenario, step, cwd, data, whole, draw, 10 * number + again)
                    code = fault.disturb(attempt)
                    hit |= attempt.hit
                    if code == 0 or scenario.done(cwd):
                        break
            if code == 0 or (number == disturbed and scenario.done(cwd)):
                continue
            running = start(filled(step, data), cwd, 10 * number + 9)
            if code := running.ended():
                raise ViolationError(f"given again it ends with {code}: {running.text[-3000:]}")
        if fault.same and (found := scenario.result(cwd)) != whole.result:
            raise ViolationError(f"the result is another one: {difference(whole.result, found)}")
        return hit


def difference(expected: object, found: object) -> str:
    """The first part in which two results differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in [*expected, *found]:
            if expected.get(name) != found.get(name):
                return f"{name}: {difference(expected.get(name), found.get(name))}"
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        place = next(place for place, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other)
        return f"[{place}] {difference(expected[place], found[place])}"
    return f"{str(found)[:300]} instead of {str(expected)[:300]}"


def main() -> int:
    """Prints the table, and each fault that was lost; 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--faults", type=int, default=1000, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--light", action="store_true", help="only what starts within a second, without launchers")
    parser.add_argument(
        "--launched", type=int, default=0, metavar="N", help="the first N on two ranks, with --light, too"
    )
    parser.add_argument("--only", default="", metavar="SCENARIO/FAULT", help="e.g. train/SIGTERM, or train/")
    parser.add_argument("--repeat", type=int, default=-1, metavar="NUMBER")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    os.environ["OMP_NUM_THREADS"] = "1"
    import_libraries()
    tried, survived, lost = Counts(), Counts(), Counts()
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        root = Path(directory).resolve()
        campaign = Campaign(root, options.light)
        numbers = range(options.faults) if options.repeat < 0 else [options.repeat]
        for number in numbers:
            if time.monotonic() > end:
                break
            draw = random.Random(f"{options.seed}/{number}")
            scenario, fault = campaign.drawn(draw, on_ranks=number < options.launched)
            if options.only:
                wanted, _, kind = options.only.partition("/")
                if (wanted and wanted != scenario.name) or (kind and kind != fault.name):
                    continue
            cwd = root / f"{number}" / "work"
            cwd.mkdir(parents=True)
            tried[scenario.name, fault.name] += 1
            try:
                survived[scenario.name, fault.name] += campaign.attempt(scenario, fault, draw, cwd)
            except ViolationError as error:
                lost[scenario.name, fault.name] += 1
                print(f"--seed {options.seed} --repeat {number}: {scenario.name}, {fault.name}: {error}\n", flush=True)
            finally:
                with suppress(subprocess.CalledProcessError):
                    if cwd.is_mount():
                        subprocess.run(["umount", "--lazy", cwd], check=True, capture_output=True)
                shutil.rmtree(cwd.parent, ignore_errors=True)
    table(tried, survived, lost)
    return 1 if lost else 0


def table(tried: Counts, survived: Counts, lost: Counts) -> None:
    """Prints a row for each scenario and each fault."""
    for place, title in enumerate(("disturbed", "by")):
        print(f"{title:<22}{'tried':>8}{'hit':>8}{'survived':>10}{'lost':>7}")
        for name in dict.fromkeys(key[place] for key in sorted(tried)):
            row(name, *(sum(counts[key] for key in tried if key[place] == name) for counts in (tried, survived, lost)))
    row("all", tried.total(), survived.total(), lost.total())


def row(name: str, tried: int, survived: int, lost: int) -> None:
    print(f"{name:<22}{tried:>8}{survived + lost:>8}{survived:>10}{lost:>7}")


if __name__ == "__main__":
    sys.exit(main())
