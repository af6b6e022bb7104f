"""A report's sections about a run and about data: options, curves, jobs, and what the data sets hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcgender.commands.train import TrainConfig
from hpcgender.data.packs import manifests_in, places_of
from hpcgender.evaluate.summary import leak_lines
from hpcgender.report.charts import training_curves
from hpcgender.report.sources import Part, TrainingRun, attempts_of, read_jobs
from hpcgender.report.words import number, time_spent, when, when_unix
from jobs.hosts.processes import exit_words
from jobs.records import Submission
from shard_tools.base.errors import UserError
from shard_tools.base.figures import charts
from shard_tools.base.text import NOTHING, Table, percent, plural
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
    "layer_decay",
    "drop_path",
)


def training_section(part: Part, run: TrainingRun) -> dict[str, object]:
    """The content of training.html."""
    return {
        "facts": training_facts(part, run),
        "curves": charts(training_curves(run.records)) if run.records else [],
        "jobs": jobs_table(part),
    }


def training_facts(part: Part, run: TrainingRun) -> dict[str, str]:
    """Model, data, options, and how far the training is."""
    options = run.options
    facts = {
        "run": str(run.directory),
        "model": network(options),
        "trained on": f"{options.get('data', NOTHING)}, images of {options.get('image_size')} px",
        "manifest": str(options.get("manifest", "")),
        "leaks": "; ".join(leak_lines(options.get("leaks", ()))),
        "validated on": validated(options),
        "manifest of validation": str(options.get("val_manifest") or ""),
        "epochs": epochs(run),
        "batch": f"{options.get('batch_size')}, precision {options.get('precision')}",
        "learning": ", ".join(changed(options, LEARNING)),
        "class weights": class_weights(options),
        "sample": f"at most {plural(options['limit'], 'image')}, seed {options['limit_seed']}"
        if options.get("limit")
        else "",
        "sampling": f"{sampling(options)}, augmentation {options.get('augment')}, seed {options.get('seed')}",
        "initial weights": str(options.get("pretrained") or "random"),
        "time": cost(run),
        "code": revision(part) and f"git {revision(part)}",
    }
    return {name: line for name, line in facts.items() if line}


def validated(options: dict[str, Any]) -> str:
    """What epochs were validated on, if that is not the split val of the training data; else empty."""
    split, data = options.get("val_split", "val"), options.get("val_data")
    if split == "none":
        return "nothing: the last weights are kept"
    return f"{split} of {data or options.get('data')}" if data or split != "val" else ""


def class_weights(options: dict[str, Any]) -> str:
    """The class weights in the gender loss; empty if there are none."""
    used = " ".join(f"{weight:.4g}" for weight in options.get("class_weights_used") or ())
    return f"{used}, balanced" if used and options.get("class_weights") == "balanced" else used


def sampling(options: dict[str, Any]) -> str:
    """How classes are balanced, with the weights if there are any."""
    return " ".join(map(str, (options.get("sampling"), *options.get("sampling_weights", ()))))


def network(options: dict[str, Any]) -> str:
    """The network, its tasks and losses, and those of its options that are not the default."""
    unusual = [
        f"{name.replace('_', ' ')} {options[name]}"
        for name in ("width", "output_stride", "stem", "grayscale", "freeze", "head_norm", "dropout")
        if options.get(name, getattr(TrainConfig, name)) != getattr(TrainConfig, name)
    ]
    unusual += [
        f"{name.replace('_', ' ')} {' '.join(map(str, options[name]))}"
        for name in ("branch_layers", "head_layers")
        if options.get(name)
    ]
    losses = [f"{task} ({options.get(f'{task}_loss')})" for task in options.get("tasks", ())]
    return ", ".join((str(options.get("model", NOTHING)), f"learns {' and '.join(losses)}", *unusual))


def epochs(run: TrainingRun) -> str:
    """Epochs done, and the best and the last validation."""
    line = f"{len(run.records)} of {run.options.get('epochs', NOTHING)}"
    if run.records:
        accuracies = [record["val"]["accuracy"] for record in run.records if record["val"]["accuracy"] is not None]
        if accuracies:
            line += f", best validation accuracy {percent(max(accuracies), 2)}, last {percent(accuracies[-1], 2)}"
        errors = [record["val"]["age_mae"] for record in run.records if record["val"]["age_mae"] is not None]
        if errors:
            line += f", least validation age MAE {number(min(errors))} years"
    return line


def cost(run: TrainingRun) -> str:
    """Time, speed and memory of all epochs together."""
    if not run.records:
        return ""
    return (
        f"{time_spent(run.seconds)} in epochs, {number(run.images_per_s, 0)} images/s, "
        f"peak {number(run.peak_memory_mb, 0)} MB per process"
    )


def changed(options: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The first three of LEARNING, and of the others those that are not the default."""
    return [
        f"{name.replace('_', ' ')} {options[name]}"
        for name in names
        if name in options and (name in LEARNING[:3] or options[name] != getattr(TrainConfig, name))
    ]


def revision(part: Part) -> str:
    """The git revision of the training, from an evaluation; empty if none has it."""
    return next((one.checkpoint.revision for one in part.evaluations.values() if one.checkpoint.revision), "")


def jobs_table(part: Part) -> Table:
    """The jobs of training, evaluations and heat maps, a row for each attempt."""
    directories = [*([part.run.directory] if part.run else []), *part.evaluations, *part.cams]
    rows = [row for directory in directories for job in read_jobs(directory) for row in job_rows(job)]
    rows += [
        (directory.resolve().name, "", evaluation.run.job, "", when(evaluation.run.began), NOTHING, "", "")
        for directory, evaluation in part.evaluations.items()
        if evaluation.run.job and not read_jobs(directory)
    ]
    columns = ("job", "scheduler", "id", "submitted", "began", "ended", "hosts", "end")
    return Table(columns, tuple(rows), "jobs")


def job_rows(job: Submission) -> list[tuple[str, ...]]:
    """A row for each attempt, or one for a job that never ran."""
    first = (job.name, job.scheduler, job.job_id, when(job.submitted))
    rows: list[tuple[str, ...]] = [
        (
            *first,
            when_unix(start["time"]),
            when_unix(end["time"]) if end else NOTHING,
            ", ".join(start["hosts"]),
            (end["stopped_by"] or exit_words(end["code"])) if end else "",
        )
        for start, end in attempts_of(job)
    ]
    return rows or [(*first, NOTHING, NOTHING, "", "did not run")]


def data_section(parts: Sequence[Part]) -> dict[str, object]:
    """The content of data.html: each data set that a model was trained, validated or evaluated on."""
    known: dict[str, str] = {}
    for part in parts:
        if part.run and part.run.options.get("manifest"):
            places = places_of(Path(str(part.run.options["data"])))
            digests = manifests_in(str(part.run.options["manifest"]))
            for place, digest in zip(places, digests, strict=False):  # a directory may be moved since, and named alone
                known.setdefault(digest, str(place.root))
        if part.run and part.run.options.get("val_manifest"):
            known.setdefault(str(part.run.options["val_manifest"]), str(part.run.options["val_data"]))
        for evaluation in part.evaluations.values():
            known[evaluation.data.manifest] = evaluation.data.path
    return {"data_sets": [data_set(Path(path), digest) for digest, path in known.items()]}


def data_set(root: Path, digest: str) -> dict[str, object]:
    """What a data set holds, if it is still the one with that manifest."""
    manifest = manifest_of(root, digest)
    if manifest is None:
        gone = {"data set": str(root), "manifest": digest, "now": "missing or packed anew: not read"}
        return {"name": root.name, "facts": gone, "splits": None}
    counted = next(iter(manifest.splits.values())).counts if manifest.splits else ()
    rows = tuple(
        (name, *(f"{count:,}" for count in (split.samples, *split.counts.values(), len(split.shards))))
        for name, split in manifest.splits.items()
    )
    return {
        "name": root.name,
        "facts": {**header(manifest, measure(manifest, list(manifest.splits))), "manifest": digest},
        "splits": Table(("split", "images", *counted, "shards"), rows),
    }


def manifest_of(root: Path, digest: str) -> Manifest | None:
    """The manifest in a directory; None if it is missing or another one."""
    try:
        manifest = read_manifest(root)
    except UserError:
        return None
    return manifest if manifest.sha256 == digest else None
