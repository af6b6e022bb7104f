"""Trains as the command does, then writes what each rank holds: run by torch.distributed.run, options as for train."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import closing

from hpcgender.commands.train import TrainConfig
from hpcgender.data.packs import read_packs
from hpcgender.distributed import Ranks, process_group
from hpcgender.stop import StopSignal
from hpcgender.train.loop import Trainer
from shard_tools.base.commands import parse_options


def train(config: TrainConfig, ranks: Ranks) -> str:
    """The hash of what this rank holds after a run, which ends before the process group that it uses."""
    weights = hashlib.sha256()
    with closing(Trainer(config, read_packs(config.data), ranks, StopSignal())) as run:
        run.train()
        for value in run.learner.network.state_dict().values():
            weights.update(value.contiguous().numpy().tobytes())
    return weights.hexdigest()


if __name__ == "__main__":
    config: TrainConfig = parse_options(TrainConfig, "train", sys.argv[1:])
    with process_group() as ranks:
        held = ranks.gather(train(config, ranks))
        if ranks.is_first:
            (config.run_dir / "held.json").write_text(json.dumps(held))
