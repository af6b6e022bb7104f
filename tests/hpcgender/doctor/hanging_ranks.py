"""An examination by two ranks, of which the second one `hangs` or `dies` in an all-reduce, or `dies-early`: `HOW`."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from hpcgender.commands.doctor import DoctorConfig
from hpcgender.doctor import examination, network, speed
from hpcgender.doctor.finding import green

if __name__ == "__main__":
    how, rank = sys.argv[1], os.environ["RANK"]
    speed.SECONDS, speed.STEPS = 0.1, 1
    network.PATIENCE = 2.0 if how == "hangs" else 600.0
    examination.tried_interruption = lambda: green("signals", "")

    def wait(*_: object) -> Any:
        if how != "hangs":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    if rank == "1" and how == "dies-early":
        network.clocks = wait  # type: ignore[assignment]
    elif rank == "1":
        network.all_reduce = wait  # type: ignore[assignment]
    sys.exit(examination.examine(DoctorConfig(model="resnet18", image_size=32, batch_size=4, backend="torchvision")))
