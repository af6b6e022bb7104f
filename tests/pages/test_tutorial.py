"""Both tutorials and README's six lines, command by command as they stand there, on fewer and smaller faces."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcgender.study.file import Study, read_study
from tests.conftest import REAL_DATA, Run
from tests.pages.commands import ROOT, parts
from tests.pages.running import carry_out, missing, run_programs, steps

TUTORIAL = ROOT / "docs" / "tutorial.md"
UTKFACE = ROOT / "docs" / "tutorial-utkface.md"
README = ROOT / "README.md"


@pytest.mark.slow
def test_the_tutorial_leads_to_a_figure(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(steps(TUTORIAL)) == 11
    for step in steps(TUTORIAL):
        carry_out(run, step, tmp_path)
    run_programs(TUTORIAL, tmp_path, monkeypatch)
    made = (
        *("faces.png", "compare.png", "groups.pdf", "report.html", "runs/plain/evaluations/faces-test/errors.png"),
        *("runs/plain/cams/faces-test/sheet.png", "runs/plain/cams/faces-test/deletion.png"),
    )
    assert missing(made, tmp_path) == []
    assert all(name in TUTORIAL.read_text(encoding="utf-8") for name in ("sheet.png", "deletion.png", "report.html"))


def begin(run: Run, study: Study, directory: Path) -> None:
    """Trains and evaluates the runs of a study by its commands, without launcher and agent: it finds them finished."""
    for trial in study.trials:
        for call in (study.training(trial), *study.evaluated_on(trial)):
            carry_out(run, ["hpcgender", *call.words], directory)


@pytest.mark.slow
def test_the_tutorial_on_utkface_leads_to_a_table(
    run: Run, real_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "UTKFace").mkdir()
    for image in sorted(real_faces.iterdir())[::100]:
        (tmp_path / "UTKFace" / image.name).symlink_to(image)
    (study,) = (part for part in parts(UTKFACE) if part.language == "toml")
    text = "\n".join(study.lines)
    text = (
        text.replace('"resnet18", ', "")
        .replace("0, 1, 2", "0, 1")
        .replace("[grid]", "epochs = 1\nimage_size = 32\n[grid]")
    )
    (tmp_path / "paper.toml").write_text(text)
    assert len(steps(UTKFACE)) == 11
    for step in steps(UTKFACE):
        if step[1:] == ["study", "paper.toml"]:
            monkeypatch.chdir(tmp_path)
            begin(run, read_study(Path("paper.toml")), tmp_path)
        carry_out(run, step, tmp_path)
    run_programs(UTKFACE, tmp_path, monkeypatch)
    of_a_run = ("cams/utkface-test/sheet.png", "cams/utkface-test/deletion.png", "evaluations/utkface-test/errors.png")
    made = (
        *("aligned/sheet.png", "faces.png", "data/utkface/summary.txt", "compare.png"),
        *("compare.csv", "runs/paper/result.json", "table.tex", "decades.pdf", "report.html"),
        *(f"runs/paper/se_resnet18-seed0/{name}" for name in of_a_run),
    )
    assert missing(made, tmp_path) == []
    (row,) = (tmp_path / "table.tex").read_text().splitlines()
    assert row.startswith(r"se\_resnet18 & $")


@pytest.mark.slow
def test_readmes_six_lines_lead_from_photos_to_a_report(run: Run, tmp_path: Path) -> None:
    web = REAL_DATA / "gender_dataset_face"
    if not web.is_dir():
        pytest.skip(f"no photos in {web}: set HPCGENDER_TEST_DATA to a directory that has gender_dataset_face")
    for ours, theirs in (("photos/female", "woman"), ("photos/male", "man"), ("new-photos", "man")):
        (tmp_path / ours).mkdir(parents=True)
        for image in sorted((web / theirs).iterdir())[:: 200 if ours == "new-photos" else 20]:
            (tmp_path / ours / image.name).symlink_to(image)
    six = steps(README)
    assert [step[1] for step in six] == ["pack", "train", "evaluate", "cam", "report", "predict"]
    for step in six:
        carry_out(run, step, tmp_path)
    assert missing(("report.html", "predictions.csv", "runs/mine/cams/mine-test/sheet.png"), tmp_path) == []
