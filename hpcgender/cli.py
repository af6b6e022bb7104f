"""The command `hpcgender`: which commands there are."""

from __future__ import annotations

import sys
from typing import NoReturn

from shard_tools.base.commands import Command, run_command

COMMANDS = {
    "train": Command(
        "hpcgender.commands.train:TrainConfig", "hpcgender.train.loop:train", "train a model on packed shards"
    ),
    "evaluate": Command(
        "hpcgender.commands.evaluate:EvaluateConfig",
        "hpcgender.evaluate.evaluation:evaluate",
        "measure a checkpoint on a split, every image once",
    ),
    "predict": Command(
        "hpcgender.commands.predict:PredictConfig", "hpcgender.predict:predict", "label image files with a checkpoint"
    ),
    "cam": Command(
        "hpcgender.commands.cam:CamConfig",
        "hpcgender.cam.heat_maps:cam",
        "heat maps: where the network looks, and averages",
    ),
    "compare": Command(
        "hpcgender.commands.compare:CompareConfig",
        "hpcgender.compare.comparison:compare",
        "compare runs on the same images: what they tell, what they cost, whether they differ",
    ),
    "report": Command(
        "hpcgender.commands.report:ReportConfig",
        "hpcgender.report.write:report",
        "one page to show for runs and evaluations",
    ),
    "models": Command(
        "hpcgender.commands.models:ModelsConfig",
        "hpcgender.models.table:list_models",
        "list the models and their cost",
    ),
    "show-batch": Command(
        "hpcgender.commands.show_batch:ShowBatchConfig",
        "hpcgender.show_batch.draw:show_batch",
        "draw any batch of any run as a labelled picture",
    ),
    "launch": Command(
        "hpcgender.commands.launch:LaunchConfig",
        "hpcgender.launch.start:launch",
        "run a command on several nodes, here or as a job",
    ),
    "sites check": Command(
        "hpcgender.commands.launch:CheckConfig",
        "hpcgender.launch.check:check",
        "check a site profile with its scheduler",
    ),
    "jobs": Command(
        "hpcgender.commands.jobs:JobsConfig",
        "hpcgender.status.table:list_jobs",
        "list your runs: state, accuracy, speed",
    ),
    "jobs logs": Command(
        "hpcgender.commands.jobs:LogsConfig", "hpcgender.status.logs:show_logs", "print or follow the log of a run"
    ),
    "jobs why": Command(
        "hpcgender.commands.jobs:WhyConfig", "hpcgender.status.why:why", "say why a run waits or failed"
    ),
    "jobs cancel": Command("hpcgender.commands.jobs:CancelConfig", "hpcgender.status.cancel:cancel", "cancel runs"),
    "jobs resubmit": Command(
        "hpcgender.commands.jobs:ResubmitConfig", "hpcgender.status.resubmit:resubmit", "submit a run again"
    ),
}


def main(*command: str) -> NoReturn:
    """Runs the named command, or the one that the first argument names, and exits with its code."""
    sys.exit(run_command("hpcgender", COMMANDS, [*command, *sys.argv[1:]]))
