"""Runs `hpcgender cam` with shards of few batches, keeping what is done after each, and signals itself after some.

`SIGNAL PASS BATCHES OPTIONS...`: the signal comes when this process has done so many batches of the pass, which is maps
or deletion; 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

from hpcgender.cam import progress, shards
from hpcgender.cam.shards import Rows
from hpcgender.cli import main

progress.SAVE_EVERY_S = 0
shards.MANY = 5
add, done = progress.Progress.add, Counter[str]()


def add_and_signal(self: progress.Progress, number: int, rows: Rows) -> None:
    add(self, number, rows)
    done[self.name] += 1
    if self.name == which and done[which] == batches:
        os.kill(os.getpid(), sent)


if __name__ == "__main__":
    sent, which, batches = signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])
    progress.Progress.add = add_and_signal  # type: ignore[method-assign]
    sys.argv[1:4] = []
    main("cam")
