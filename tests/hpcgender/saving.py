"""Saves checkpoints until it is killed: `DIRECTORY`, run as a program of its own."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import torch

from hpcgender.train.saver import Saver

if __name__ == "__main__":
    with Saver(Path(sys.argv[1]), keep=2) as saver:
        weights = torch.zeros(500, 1000)
        for step in count(1):
            weights.fill_(step)
            saver.save(step, {"model": {"w": weights}}, {"step": step}, best=True)
