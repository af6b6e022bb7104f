"""The command `hpcgender` and `python -m hpcgender.<command>`."""

from __future__ import annotations

import sys
from typing import NoReturn

from shard_tools.commands import Command, run_command

COMMANDS = {
    "train": Command(
        "hpcgender.train.config:TrainConfig", "hpcgender.train.loop:train", "train a model on packed shards"
    ),
    "evaluate": Command(
        "hpcgender.evaluate.config:EvaluateConfig",
        "hpcgender.evaluate.run:evaluate",
        "measure a checkpoint on a split, every image once",
    ),
    "predict": Command(
        "hpcgender.predict.config:PredictConfig", "hpcgender.predict.run:predict", "label image files with a checkpoint"
    ),
    "cam": Command(
        "hpcgender.cam.config:CamConfig", "hpcgender.cam.run:cam", "heat maps: where the network looks, and averages"
    ),
    "compare": Command(
        "hpcgender.compare.config:CompareConfig",
        "hpcgender.compare.run:compare",
        "compare runs on the same images: what they tell, what they cost, whether they differ",
    ),
    "report": Command(
        "hpcgender.report.config:ReportConfig",
        "hpcgender.report.run:report",
        "one page to show for runs and evaluations",
    ),
    "models": Command(
        "hpcgender.models.table_config:ModelsConfig",
        "hpcgender.models.table:list_models",
        "list the models and their cost",
    ),
    "show-batch": Command(
        "hpcgender.show_batch.config:ShowBatchConfig",
        "hpcgender.show_batch.run:show_batch",
        "draw any batch of any run as a labelled picture",
    ),
    "launch": Command(
        "hpcgender.launch.config:LaunchConfig",
        "hpcgender.launch.start:launch",
        "run a command on several nodes, here or as a job",
    ),
    "sites check": Command(
        "hpcgender.launch.config:CheckConfig", "hpcgender.launch.check:check", "ask the scheduler about a site profile"
    ),
    "jobs": Command(
        "hpcgender.status.config:JobsConfig",
        "hpcgender.status.table:list_jobs",
        "list your runs: state, accuracy, speed",
    ),
    "jobs logs": Command(
        "hpcgender.status.config:LogsConfig", "hpcgender.status.logs:show_logs", "print or follow the log of a run"
    ),
    "jobs why": Command(
        "hpcgender.status.config:WhyConfig", "hpcgender.status.why:why", "say why a run waits or failed"
    ),
    "jobs cancel": Command("hpcgender.status.config:CancelConfig", "hpcgender.status.cancel:cancel", "cancel runs"),
    "jobs resubmit": Command(
        "hpcgender.status.config:ResubmitConfig", "hpcgender.status.resubmit:resubmit", "submit a run again"
    ),
}


def main(*command: str) -> NoReturn:
    """Runs the named command, or the one that the first argument names, and exits with its code."""
    sys.exit(run_command("hpcgender", COMMANDS, [*command, *sys.argv[1:]]))
