"""What a report says of a run: what was trained on what and how, its curves, its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcgender.commands.train import TrainConfig
from hpcgender.report.charts import training_curves
from hpcgender.report.figures import grid
from hpcgender.report.runs import TrainingRun, attempts_of, read_jobs
from hpcgender.report.sources import Part
from hpcgender.report.words import NOTHING, number, percent, time_spent, when, when_unix
from jobs.records import Submission
from shard_tools.base.errors import UserError
from shard_tools.base.page import card, fact_list, text_table
from shard_tools.inspect.statistics import measure
from shard_tools.inspect.tables import header
from shard_tools.manifest import Manifest, read_manifest

LEARNING = (
    "optimizer",
    "lr",
    "schedule",
    "warmup_epochs",
    "weight_decay",
    "label_smoothing",
    "ema",
    "mixup",
    "clip_norm",
)


def training_cards(part: Part, run: TrainingRun) -> str:
    """The cards of a run."""
    cards = card("training", fact_list(training_facts(part, run)))
    if run.records:
        cards += card("training, epoch by epoch", grid(training_curves(run.records)))
    return cards + jobs_card(part)


def training_facts(part: Part, run: TrainingRun) -> dict[str, str]:
    """What was trained on what, and what came of it."""
    options = run.options
    facts = {
        "run": str(run.directory),
        "model": model_said(options),
        "trained on": f"{options.get('data', NOTHING)}, images of {options.get('image_size')} px",
        "manifest": str(options.get("manifest", "")),
        "epochs": epochs_said(run),
        "batch": f"{options.get('batch_size')} images, precision {options.get('precision')}",
        "learning": ", ".join(changed(options, LEARNING)),
        "sampling": f"{options.get('sampling')}, augmentation {options.get('augment')}, seed {options.get('seed')}",
        "begun with": str(options.get("pretrained") or "random weights"),
        "time": time_said(run),
        "code": revision(part) and f"git {revision(part)}",
    }
    return {name: line for name, line in facts.items() if line}


def model_said(options: dict[str, Any]) -> str:
    """The network, what it learns, and of its options those that are not as usual."""
    unusual = [
        f"{name.replace('_', ' ')} {options[name]}"
        for name, usual in (("output_stride", 32), ("stem", "standard"), ("grayscale", False), ("freeze", "none"))
        if options.get(name, usual) != usual
    ]
    losses = [f"{task} ({options.get(f'{task}_loss')})" for task in options.get("tasks", ())]
    return ", ".join((str(options.get("model", NOTHING)), f"learns {' and '.join(losses)}", *unusual))


def epochs_said(run: TrainingRun) -> str:
    """How far it is, and the last validation."""
    line = f"{len(run.records)} of {run.options.get('epochs', NOTHING)}"
    if run.records:
        accuracies = [record["val"]["accuracy"] for record in run.records if record["val"]["accuracy"] is not None]
        if accuracies:
            line += f", best validation accuracy {percent(max(accuracies), 2)}, last {percent(accuracies[-1], 2)}"
        errors = [record["val"]["age_mae"] for record in run.records if record["val"]["age_mae"] is not None]
        if errors:
            line += f", least validation age MAE {number(min(errors))} years"
    return line


def time_said(run: TrainingRun) -> str:
    """Time, speed and memory of all epochs together."""
    if not run.records:
        return ""
    return (
        f"{time_spent(run.seconds)} in epochs, {number(run.images_per_s, 0)} images/s, "
        f"at most {number(run.peak_memory_mb, 0)} MB a process"
    )


def changed(options: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Options that matter to every run, and of the others those that are not left as they are."""
    return [
        f"{name.replace('_', ' ')} {options[name]}"
        for name in names
        if name in options and (name in LEARNING[:3] or options[name] != getattr(TrainConfig, name))
    ]


def revision(part: Part) -> str:
    """The git revision that trained, from an evaluation; empty if none knows."""
    return next((one.checkpoint.revision for one in part.evaluations.values() if one.checkpoint.revision), "")


def jobs_card(part: Part) -> str:
    """The jobs of training, evaluations and heat maps, a line for each time that one ran."""
    directories = [*([part.run.directory] if part.run else []), *part.evaluations, *part.cams]
    rows = [row for directory in directories for job in read_jobs(directory) for row in job_rows(job)]
    rows += [
        (directory.resolve().name, "", evaluation.run.job, "", when(evaluation.run.began), NOTHING, "", "")
        for directory, evaluation in part.evaluations.items()
        if evaluation.run.job and not read_jobs(directory)
    ]
    columns = ("job", "scheduler", "id", "submitted", "began", "ended", "hosts", "end")
    return card("jobs", text_table(columns, rows)) if rows else ""


def job_rows(job: Submission) -> list[tuple[str, ...]]:
    """A row for each attempt, or one for a job that never ran."""
    first = (job.name, job.scheduler, job.job_id, when(job.submitted))
    rows: list[tuple[str, ...]] = [
        (
            *first,
            when_unix(start["time"]),
            when_unix(end["time"]) if end else NOTHING,
            ", ".join(start["hosts"]),
            (end["stopped_by"] or f"exit code {end['code']}") if end else "",
        )
        for start, end in attempts_of(job)
    ]
    return rows or [(*first, NOTHING, NOTHING, "", "did not run")]


def data_cards(parts: Sequence[Part]) -> str:
    """A card for each data set that was trained or measured on: what is packed there, if it is still the same."""
    known: dict[str, str] = {}
    for part in parts:
        if part.run and part.run.options.get("manifest"):
            known.setdefault(str(part.run.options["manifest"]), str(part.run.options["data"]))
        for evaluation in part.evaluations.values():
            known[evaluation.data.manifest] = evaluation.data.path
    return "".join(data_card(Path(path), digest) for digest, path in known.items())


def data_card(root: Path, digest: str) -> str:
    """What the manifest says, or that it is gone."""
    title = f"data: {root.name}"
    manifest = manifest_of(root, digest)
    if manifest is None:
        gone = {"data set": str(root), "manifest": digest, "now": "not there, or packed anew: not looked at"}
        return card(title, fact_list(gone))
    facts = {**header(manifest, measure(manifest, list(manifest.splits))), "manifest": digest}
    counted = next(iter(manifest.splits.values())).counts if manifest.splits else ()
    rows = [
        (name, *(f"{count:,}" for count in (split.samples, *split.counts.values(), len(split.shards))))
        for name, split in manifest.splits.items()
    ]
    return card(title, fact_list(facts), text_table(("split", "images", *counted, "shards"), rows))


def manifest_of(root: Path, digest: str) -> Manifest | None:
    """The manifest in a directory, if it is there and the very one."""
    try:
        manifest = read_manifest(root)
    except UserError:
        return None
    return manifest if manifest.sha256 == digest else None
