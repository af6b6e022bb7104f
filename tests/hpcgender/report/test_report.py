from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcgender.commands.report import ReportConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.compare.paired import pairs, verdict
from hpcgender.evaluate.predictions import read_predictions, write_predictions
from hpcgender.evaluate.results import read_evaluation
from hpcgender.evaluate.summary import against_baseline
from hpcgender.report.page import report
from hpcgender.report.sources import Part, TrainingRun
from hpcgender.report.training import data_section, training_facts
from jobs.records import Resources, Submission, append_event, surroundings, write_submission
from shard_tools.base.documents import write_document
from shard_tools.base.errors import UserError
from shard_tools.base.text import percent
from shard_tools.manifest import read_manifest
from tests.conftest import Run
from tests.hpcgender.compare.other_seeds import of_seed
from tests.hpcgender.report.browser import chromium

HOSTILE = "<script>alert('x')</script> & \x1b[31mred"
ODD = "$\\frac{$ \\1 女性"
MORNING = datetime(2026, 3, 1, 9, tzinfo=timezone.utc).timestamp()
ATTEMPTS = [
    {"event": "start", "attempt": 1, "job_id": "337624", "hosts": ["n1", "n2"], "time": MORNING},
    {"event": "end", "attempt": 1, "time": MORNING + 86400, "code": 99, "stopped_by": "time limit"},
    {"event": "start", "attempt": 2, "job_id": "337624", "hosts": ["n3"], "time": MORNING + 87000},
    {"event": "end", "attempt": 2, "time": MORNING + 122_400, "code": 0, "stopped_by": None},
]


def write_job(run_dir: Path) -> None:
    """The record of a job that was put into the queue again."""
    record = run_dir / "submissions" / "20260301T083000-337624"
    submission = Submission(
        name="train_both",
        command=("train",),
        argv=("python", "-m", "hpcgender.launch"),
        script="",
        scheduler="sge",
        job_id="337624",
        site={"name": "sge"},
        resources=Resources(nodes=2),
        after=(),
        log="",
        cwd=str(run_dir),
        user="student",
        host="login",
        submitted="2026-03-01T08:30:00Z",
        revision="",
        manifest="",
        directory=record,
    )
    write_submission(submission, "", surroundings({}, run_dir))
    for event in ATTEMPTS:
        append_event(record, **event)


@pytest.fixture(scope="module")
def page(evaluated: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The page of both runs, the first of which was a job that was put into the queue again."""
    runs = tmp_path_factory.mktemp("reported")
    for name in ("both", "lean"):
        shutil.copytree(evaluated / name, runs / name)
    write_job(runs / "both")
    done = run("hpcgender", "report", runs / "both", runs / "lean", "--out", "page.html", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert "models: 2, evaluations: 2, heat maps: 1" in done.stdout
    return runs / "page.html"


def evaluation_of(run_dir: Path) -> Path:
    (found,) = (run_dir / "evaluations").iterdir()
    return found


def test_a_browser_shows_it_at_any_width_light_and_dark(page: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        papers = set()
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                layout = browser.open(page, width, scheme)
                assert browser.complaints == []
                assert browser.asked[0] == page.as_uri()
                assert all(address.startswith("data:image/") for address in browser.asked[1:])
                assert layout["across"] <= 0, "it scrolls sideways"
                assert layout["cut"] == [], "a card is cut off"
                assert layout["broken"] == []
                assert layout["images"] > 10
                assert len(layout["charts"]) > 15
                assert min(layout["charts"]) > 60
                assert layout["letters"] >= 8
                papers.add((layout["paper"], layout["ink"]))
        assert len(papers) == 2
        paper = browser.open(page, 794, "dark", media="print")  # A4
        assert paper["across"] <= 0
        assert paper["ink"] == "rgb(28, 27, 25)"
        browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") > 3


def test_it_loads_and_runs_nothing(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "://" not in text
    assert "<script" not in text
    assert {address.partition(":")[0] for address in re.findall(r'(?:src|href)="([^",;]*)', text)} <= {
        "data",
        *anchors(text),
    }
    charts = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(charts) > 15
    drawn_in = {colour for chart in charts for colour in re.findall(r"#[0-9a-fA-F]{6}\b", chart)}
    assert drawn_in == set(), "a colour that is not the page's stays light in the dark"
    assert all("aria-label" in chart for chart in charts)


def anchors(text: str) -> set[str]:
    """Links within the page, all of which lead somewhere."""
    links = set(re.findall(r'href="(#[^"]*)"', text))
    assert all(f'id="{link[1:]}"' in text for link in links)
    return links


def test_training_evaluation_and_heat_maps_are_on_it(page: Path, shards: Path) -> None:
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    evaluation = read_evaluation(evaluation_of(page.parent / "both"))
    gender, age = evaluation.gender, evaluation.age
    assert gender
    assert age
    for line in (
        f"{gender.accuracy.value:.2%}".replace("%", " %"),
        f"{gender.accuracy.low * 100:.2f} to {gender.accuracy.high * 100:.2f}",
        f"{gender.roc_auc.value:.4f}",
        f"{age.mae.value:.2f}",
        evaluation.data.manifest,
        evaluation.checkpoint.digest,
        str(shards),
        "se_resnet18, learns gender (ce) and age (l1), output stride 16",
        "2 of 2, best validation accuracy",
        "bootstrap of subjects",
        "Gender is annotated and binary",
        "Identifying or verifying people, or sorting",
        "accuracy by age decade",
        "differences of averages",
        "male minus female",
        "deletion check",
    ):
        assert line in text
    assert evaluation.checkpoint.revision in text
    gap = evaluation.table("gender")
    assert gap
    if gap.gap:
        assert f"Largest gap: {gap.gap.best} to {gap.gap.worst}" in text
    if any(group.small for table in evaluation.tables for group in table.groups):
        assert "Groups marked few" in text


def test_each_number_of_two_runs_has_its_run_and_the_two_are_compared(page: Path) -> None:
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    found = {name: read_evaluation(evaluation_of(page.parent / name)) for name in ("both", "lean")}
    for name, evaluation in found.items():
        assert evaluation.gender
        assert evaluation.gender.baseline
        accuracy = f"{evaluation.gender.accuracy.value:.2%}".replace("%", " %")
        assert re.search(rf"{accuracy}\s+accuracy, {name} on {Path(evaluation.data.path).name}, val", text)
        assert f"The model is {against_baseline(evaluation.gender)}." in text
        assert f"always {evaluation.gender.baseline.name}" in text
    (pair,) = pairs([(name, read_predictions(evaluation_of(page.parent / name))) for name in found])
    assert "both - lean" in text
    assert verdict(pair, alone=True) in text


def test_each_attempt_of_a_job_is_a_row(page: Path) -> None:
    rows = re.findall(r"<tr><th[^>]*>train_both</th>.*?</tr>", page.read_text())
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    first, second = ("2026-03-01 09:00:00Z", "2026-03-02 09:00:00Z"), ("2026-03-02 09:10:00Z", "2026-03-02 19:00:00Z")
    assert cells == [
        ["train_both", "sge", "337624", "2026-03-01 08:30:00Z", *first, "n1, n2", "time limit"],
        ["train_both", "sge", "337624", "2026-03-01 08:30:00Z", *second, "n3", "exit code 0"],
    ]


def test_an_evaluation_alone_brings_its_run_and_heat_maps(evaluated: Path, tmp_path: Path) -> None:
    given = evaluation_of(evaluated / "both")
    (tmp_path / "link").symlink_to(evaluated / "both" / "evaluations")
    report(ReportConfig(inputs=(given, tmp_path / "link" / given.name), out=tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert text.count('class="part"') == 5  # training, evaluation, heat maps, data, model card
    assert "lean" not in re.sub(r"base64,[^\"]*", "", text)


def test_what_comes_from_outside_is_escaped(evaluated: Path, tmp_path: Path) -> None:
    given = tmp_path / "hostile"
    shutil.copytree(evaluation_of(evaluated / "lean"), given)
    content = json.loads((given / "evaluation.json").read_text())
    content["tables"][0]["groups"][0]["value"] = HOSTILE
    content["tables"][0]["groups"][1]["value"] = ODD
    content["data"]["source"] = content["checkpoint"]["model"] = content["data"]["path"] = HOSTILE
    (given / "evaluation.json").write_text(json.dumps(content))
    report(ReportConfig(inputs=(given,), out=tmp_path / "page.html", title=HOSTILE))
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    assert f">{ODD}</text>" in text
    with chromium(tmp_path / "profile") as browser:
        layout = browser.open(tmp_path / "page.html", 400, "light")
        assert browser.complaints == []
        assert layout["across"] <= 0


def test_mistakes_have_faces_while_the_data_is_there(evaluated: Path, tmp_path: Path) -> None:
    given = evaluation_of(evaluated / "lean")
    wrong = len((given / "errors.csv").read_text().splitlines()) - 1
    if not wrong:
        pytest.skip("the run made no mistake")
    report(ReportConfig(inputs=(given,), out=tmp_path / "page.html", faces=5))
    text = (tmp_path / "page.html").read_text()
    assert text.count("taken for ") // 2 == min(wrong, 5)  # below the picture, and as its description
    moved = tmp_path / "moved"
    shutil.copytree(given, moved)
    content = json.loads((moved / "evaluation.json").read_text())
    content["data"]["path"] = str(tmp_path / "gone")
    (moved / "evaluation.json").write_text(json.dumps(content))
    report(ReportConfig(inputs=(moved,), out=tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "taken for " not in text
    assert 'alt="a sheet of the most confident mistakes"' in text
    assert "missing or packed anew" in text


def test_a_run_that_was_not_evaluated_has_its_curves(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "lean", tmp_path / "young", ignore=shutil.ignore_patterns("evaluations", "cams"))
    (tmp_path / "young" / "metrics.jsonl").unlink()
    report(ReportConfig(inputs=(tmp_path / "young",), out=tmp_path / "page.html"))
    assert "0 of 2" in (tmp_path / "page.html").read_text()
    shutil.copy(evaluated / "lean" / "metrics.jsonl", tmp_path / "young")
    report(ReportConfig(inputs=(tmp_path / "young",), out=tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "accuracy by epoch" in text
    assert "error of the age by epoch" not in text


def test_options_of_heads_classes_and_validation_are_on_it(shards: Path, tmp_path: Path) -> None:
    """And the data set of --val-data is among those that are described."""
    config = TrainConfig(
        data=tmp_path / "moved",
        val_data=shards,
        head_layers=(64,),
        head_norm=True,
        dropout=0.2,
        class_weights="balanced",
        sampling="weights",
        sampling_weights=(1.0, 2.0),
    )
    manifest = read_manifest(shards)
    written = {**config.plain(), "manifest": "0" * 64, "val_manifest": manifest.sha256}
    options = json.loads(json.dumps({**written, "class_weights_used": (0.8, 4 / 3)}))
    part = Part("a", TrainingRun(directory=tmp_path / "a", options=options, records=()))
    assert part.run
    facts = training_facts(part, part.run)
    assert facts["validated on"] == f"val of {shards}"
    assert facts["manifest of validation"] == manifest.sha256
    assert facts["model"] == "se_resnet50, learns gender (ce), head norm True, dropout 0.2, head layers 64"
    assert facts["class weights"] == "0.8 1.333, balanced"
    assert facts["sampling"].startswith("weights 1.0 2.0, augmentation ")
    data_sets: Any = data_section([part])["data_sets"]
    moved, validated = data_sets
    assert moved["facts"]["now"] == "missing or packed anew: not read"
    assert validated["facts"]["manifest"] == manifest.sha256
    assert validated["splits"]


def test_two_seeds_of_a_study_are_one_model_and_what_was_looked_at_is_said(evaluated: Path, tmp_path: Path) -> None:
    study = tmp_path / "table"
    for seed in (0, 1):
        run = shutil.copytree(evaluated / "lean", study / f"lean-seed{seed}")
        of_seed(evaluation_of(run), seed, run)
    (study / "study.toml").touch()
    first = read_predictions(evaluation_of(study / "lean-seed0"))
    second = replace(first, logit=np.where(np.arange(len(first)) < 3, -first.logit, first.logit))
    write_predictions(evaluation_of(study / "lean-seed1"), second)

    config = ReportConfig(inputs=(study,), out=tmp_path / "page.html")
    report(config)
    text = config.out.read_text()
    (row,) = re.findall(r"<tr><th[^>]*>table/lean</th>(.*?)</tr>", text)
    seeds, mean, _, deviation = re.findall(r"<td>(.*?)</td>", row)
    right = [np.mean((one.logit > 0) == one.label) for one in (first, second)]
    assert seeds == "2"
    assert mean == percent(float(np.mean(right)), 2)
    assert deviation == f"{100 * np.std(right, ddof=1):.2f}" != "0.00"
    assert "first minus second" not in text  # one model alone
    assert "<dt>study table</dt><dd>no result yet: hpcgender study result table counts the runs" in text

    left = {"finished": False, "stopped_early": True, "epochs": 1, "score": None, "val_accuracy": None}
    trials = [
        {"name": "lean-seed0", **left, "finished": True, "stopped_early": False, "val_age_mae": None},
        {"name": "lean-seed1", **left, "val_age_mae": None},
    ]
    measured: list[dict[str, float]] = [{"morph-test": 0.9}, {}]
    content = {"study": "table", "best": "lean-seed0", "looked_at": 2, "evaluate": {}, "compare": [], "compared": []}
    both = [{**trial, "evaluations": found} for trial, found in zip(trials, measured, strict=True)]
    write_document(study / "result.json", "hpcgender-study-result-1", {**content, "trials": both})
    report(config)
    assert (
        "<dd>2 runs looked at, 1 of them stopped early; best by validation alone: lean-seed0; morph-test was measured "
        "for 1 of 2 runs, and chose none</dd>"
    ) in config.out.read_text()
    write_document(study / "result.json", "hpcgender-study-result-1", {**content, "trials": 2})
    with pytest.raises(UserError, match=r"result\.json is damaged \(trials must be .*\): hpcgender study result table"):
        report(config)


def test_equal_reports_are_equal(evaluated: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        report(ReportConfig(inputs=(evaluated / "both",), out=tmp_path / name))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "nothing to report: hpcgender report runs/mine"),
        ({"inputs": (Path("nowhere"),)}, "no directory nowhere: name a run"),
        ({"inputs": (Path(),)}, r"\. is neither a run nor an evaluation"),
        ({"faces": -1}, "--faces -1 must not be negative"),
        ({"out": Path("nowhere/page.html")}, "no directory nowhere to write page.html into"),
        ({"out": Path("page.pdf")}, "page.pdf does not end in .html: name it page.html"),
    ],
)
def test_a_wrong_option_is_one_line(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        report(ReportConfig(**{"inputs": (evaluated / "lean",), **options}))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json is damaged"),
        ("metrics.jsonl", "{\n", r"metrics\.jsonl, line 1 is damaged .*: remove that line"),
        ("evaluations/shards-val/evaluation.json", "[]", "is not of format"),
        ("submissions/x/submission.json", "{", r"submission\.json is damaged \(.*\): it is no record of a submission"),
    ],
)
def test_what_is_damaged_is_named(evaluated: Path, tmp_path: Path, file: str, content: str, message: str) -> None:
    shutil.copytree(evaluated / "lean", tmp_path / "lean")
    damaged = tmp_path / "lean" / file
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        report(ReportConfig(inputs=(tmp_path / "lean",), out=tmp_path / "page.html"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "page.html").exists()
