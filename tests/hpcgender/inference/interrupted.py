"""Runs a command with shards of few blocks, saving its state after each, and signals itself after some.

`SIGNAL PASS BLOCKS COMMAND OPTIONS...`: the signal comes when this process has done so many blocks of the pass, which
is maps or deletion of cam, or the split of evaluate; 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

from hpcgender.cli import main
from hpcgender.inference import blocks, progress
from hpcgender.inference.blocks import Rows

progress.SAVE_EVERY_S = 0
blocks.MANY = 5
add, done = progress.Progress.add, Counter[str]()


def add_and_signal(self: progress.Progress, number: int, rows: Rows) -> None:
    add(self, number, rows)
    done[self.name] += 1
    if self.name == which and done[which] == count:
        os.kill(os.getpid(), sent)


if __name__ == "__main__":
    sent, which, count = signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])
    progress.Progress.add = add_and_signal  # type: ignore[method-assign]
    sys.argv[1:4] = []
    main()
