"""`hpcgender evaluate`: its options, and what is true of it and of all that measures a checkpoint on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from hpcgender.data.config import ReadConfig
from hpcgender.evaluate.decision import EVALUATIONS
from hpcgender.evaluate.results import FILE, Evaluation, read_evaluation
from hpcgender.inference.config import SplitConfig
from hpcgender.inference.facts import WORK, check_origin
from hpcgender.robustness.results import find_robustness
from hpcgender.run_directory import is_finished
from shard_tools.base.commands import Command, Made, Shown, default_is
from shard_tools.base.errors import UserError, nearest, unknown
from shard_tools.base.files import check_writable
from shard_tools.manifest import MANIFEST, read_manifest

ALL = "all"
"""Of --corrupt: every corruption."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SplitConfig):
    """Measures a checkpoint on a split, every image exactly once.

    Under the launcher the processes share the images; the results are the same bits for any number of processes. Killed
    or stopped, the same command resumes.
    """

    results: ClassVar[str] = EVALUATIONS
    kept: ClassVar[str] = "predictions"

    flip: bool = False
    """Average the predictions for each image and its mirror image."""
    temperature_from: Annotated[str, default_is("none", "SPLIT|EVALUATION")] = ""
    """Calibrate the probabilities by temperature scaling; the temperature is fitted on another split of the data,
    e.g. val, or on another evaluation of the checkpoint, given by its directory."""
    keep_temperature: bool = False
    """Keep the temperature in the checkpoint's file: predict and export then use it wherever the file goes. Results of
    the checkpoint stay its own."""
    table: Annotated[Path | None, default_is("none", "FILE")] = None
    """CSV, TSV or Parquet file with further labels; its column key has the images' keys, as in predictions.csv,
    or its column image, file or path the paths of the files that were packed."""
    by: Annotated[tuple[str, ...], default_is("all", "COLUMN ...")] = ()
    """Columns of --table to report scores by."""
    without_trained: bool = False
    """Leave out images that lie byte for byte in the training split of the checkpoint's run."""
    corrupt: Annotated[tuple[str, ...], default_is("none", "all|NAME ...")] = ()
    """Evaluate corrupted images, too, with five severities each: all, or some of blur, motion-blur, gaussian-noise,
    shot-noise, jpeg, low-resolution, darkness, over-exposure, contrast, occlusion and grey. Each takes five
    forward passes of each image, and corrupts it on the CPU, also where a GPU computes."""
    errors: bool = False
    """Write errors.csv, the misclassified images, the most confident first, and errors.png with the first of them."""
    finished: bool = False
    """Refuse the checkpoint of a run that has not trained all of its epochs yet."""

    def check_given(self) -> None:
        super().check_given()
        if self.by and not self.table:
            raise UserError(f"--by {' '.join(self.by)} needs the --table that has the columns: give its file")
        if self.table:
            from hpcgender.evaluate.table import columns_to_read  # and numpy, for which a submission need not wait

            columns_to_read(self.table, self.by)
        if self.corrupt:
            from hpcgender.robustness.corruptions import CORRUPTIONS  # and numpy, as above

            for name in self.corrupt:
                if name not in (ALL, *CORRUPTIONS):
                    raise unknown("corruption", name, [ALL, *CORRUPTIONS])
        if self.temperature_from:
            self.check_temperature()
        if self.keep_temperature:
            if not self.temperature_from:
                raise UserError("--keep-temperature keeps what --temperature-from fits: give that, too")
            if self.flip:
                raise UserError("--keep-temperature is for predictions without --flip, which are others: leave one out")

    def check(self) -> None:
        super().check()
        if self.finished and not is_finished(run_dir := self.checkpoint.parent.parent):
            raise UserError(f"{run_dir} has not trained all of its epochs: leave --finished out to evaluate it now")
        if self.keep_temperature:
            check_writable(self.checkpoint.resolve().parent, "leave --keep-temperature out")
        if (self.out_dir / FILE).exists():
            self.check_held(read_evaluation(self.out_dir))

    @property
    def passes(self) -> dict[str, str]:
        splits = {split: split for split in (self.split, self.temperature_split) if split}
        return {**splits, **dict.fromkeys(self.corruptions, self.split)}

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions that --corrupt names, each once, in the order of tables."""
        if not self.corrupt:
            return ()
        from hpcgender.robustness.corruptions import CORRUPTIONS

        return tuple(name for name in CORRUPTIONS if ALL in self.corrupt or name in self.corrupt)

    def origin(self, split: str) -> dict[str, Any]:
        return {**super().origin(split), "--flip": self.flip}

    @property
    def temperature_fitted_on(self) -> str:
        """Where the temperature is fitted, as `Temperature.fitted_on` notes it; empty without one."""
        if not self.temperature_from:
            return ""
        return self.temperature_split or str(Path(self.temperature_from).resolve())

    def check_held(self, held: Evaluation) -> None:
        """Raises UserError if the evaluation that `out_dir` holds has what this one would not have."""
        options = held.options
        origin = {
            "checkpoint": held.checkpoint.digest,
            "data set": held.data.manifest,
            "split": held.data.split,
            "--batch-size": options.batch_size,
            "--backend": options.backend,
            "--precision": options.precision,
            "--flip": options.flip,
            "--without-trained": held.data.trained_on.left_out,
        }
        mine = {**self.origin(self.split), "--without-trained": self.without_trained}
        if held.gender and held.gender.temperature:
            origin["--temperature-from"] = held.gender.temperature.fitted_on
            mine["--temperature-from"] = self.temperature_fitted_on
        if own := held.own_columns:
            from hpcgender.evaluate.table import columns_to_read

            columns = columns_to_read(self.table, self.by).wanted if self.table else ()
            origin["--by"] = " ".join(own)
            mine["--by"] = " ".join(column for column in own if column in columns)
        if robustness := find_robustness(self.out_dir):
            origin["--corrupt"] = " ".join(robustness.names)
            mine["--corrupt"] = " ".join(name for name in robustness.names if name in self.corruptions)
        check_origin(origin, mine, self.out_dir, "an evaluation")

    @property
    def temperature_split(self) -> str:
        """The split to fit the temperature on; empty if --temperature-from is an evaluation."""
        splits = read_manifest(self.data).splits if self.temperature_from else ()
        return self.temperature_from if self.temperature_from in splits else ""

    def check_temperature(self) -> None:
        """Raises UserError if the temperature cannot be fitted there."""
        if self.temperature_split == self.split:
            raise UserError(
                f"--temperature-from {self.split} is the split to evaluate, which would flatter: fit it on another"
            )
        if self.temperature_split:
            return
        directory = Path(self.temperature_from)
        splits = read_manifest(self.data).splits
        if not (directory / FILE).is_file():
            raise UserError(
                f"--temperature-from {self.temperature_from} is neither a split of {self.data} nor an evaluation's "
                f"directory with {FILE}: {nearest(self.temperature_from, splits)}"
            )
        other = read_evaluation(directory)
        if other.options.flip != self.flip:
            how = "with" if other.options.flip else "without"
            raise UserError(f"{directory} was evaluated {how} --flip, where a temperature is another: do as it does")
        if (other.data.manifest, other.data.split) == (read_manifest(self.data).sha256, self.split):
            raise UserError(f"{directory} has the images to evaluate, which would flatter: take another split's")


Measured = TypeVar("Measured", bound=SplitConfig)


@dataclass(frozen=True, kw_only=True)
class MeasureCommand(Command[Measured]):
    """A command that measures a checkpoint on a split."""

    kind: str
    """Directory of such results within a run directory."""
    without_gender: bool = True
    """Whether it can measure a model that is trained for age alone."""

    def results(self, options: Measured) -> Path:
        return options.out_dir

    def data(self, options: Measured) -> Path:
        return options.data

    def job_name(self, options: Measured) -> str:
        run = "" if options.out else f" {options.out_dir.parents[1].name}"
        return f"{self.name}{run} {options.out_dir.name}"

    def progress(self, options: Measured) -> int:
        """The shards of results that are complete: their keys are written last."""
        return sum(1 for _ in options.out_dir.rglob("keys-*.npy"))

    def made(self, options: Measured) -> Made:
        backend = "" if options.backend == ReadConfig.backend else options.backend
        return Made(data=options.data, checkpoint=options.checkpoint, split=options.split, backend=backend)

    def following(self, made: Made) -> tuple[str, ...] | None:
        """On the checkpoint, data set and split of the command before: a training, or another such command."""
        if made.checkpoint and not made.data:
            raise UserError("the model is trained on several data sets: submit it by itself with --data and --after")
        if not made.checkpoint or not made.data:
            return None
        if (made.data / MANIFEST).is_file():  # else it is packed first
            read_manifest(made.data).split(made.split)
        if made.tasks and "gender" not in made.tasks and not self.without_gender:
            raise UserError(
                f"{self.name} needs a model that is trained for gender, not only {' and '.join(made.tasks)}"
            )
        if not made.final:  # a training will have replaced the checkpoint by then
            run_dir = made.checkpoint.parent.parent
            out = run_dir / self.kind / f"{made.data.resolve().name}-{made.split}"
            if any(out.glob("*.json")) or any((out / WORK).glob("*.json")):
                raise UserError(f"{out} holds results of an earlier checkpoint, and is not replaced: move or remove it")
        words = ("--checkpoint", str(made.checkpoint), "--data", str(made.data), "--split", made.split)
        return (self.name, *words, *(("--backend", made.backend) if made.backend else ()))


class Evaluate(MeasureCommand[EvaluateConfig]):
    """Measuring a checkpoint's predictions. Stopped or killed, the same command resumes."""

    def shown(self, results: Path, log: str, running: bool, now: float) -> Shown:
        """Accuracy and age MAE of the evaluation, once it is complete."""
        try:
            evaluation = read_evaluation(results)
        except UserError:  # there is none yet
            return Shown()
        return Shown(
            accuracy=evaluation.gender.accuracy.value if evaluation.gender else None,
            age_mae=evaluation.age.mae.value if evaluation.age else None,
        )


COMMANDS = (
    Evaluate(
        name="evaluate",
        alias="eval",
        kind=EvaluateConfig.results,
        summary="measure a checkpoint on a split, every image once",
        options=EvaluateConfig,
        work="hpcgender.evaluate.evaluation:evaluate",
        distributed=True,
    ),
)
