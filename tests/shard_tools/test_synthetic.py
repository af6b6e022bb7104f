from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shard_tools.base.errors import UserError
from shard_tools.commands.synthetic import SyntheticConfig
from shard_tools.synthetic.canvas import Picture, Subject
from shard_tools.synthetic.drawing import draw_face
from shard_tools.synthetic.files import draw_faces
from shard_tools.synthetic.subjects import SEPARATION, SPREAD, sample_pictures, sample_subject

SMALL = SyntheticConfig(out=Path("pictures"), count=24, seed=5, size=48)


def drawn(directory: Path, **options: Any) -> dict[str, bytes]:
    """The files, by name, that SMALL with `options` draws into `directory`."""
    draw_faces(replace(SMALL, out=directory, **options))
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return drawn(tmp_path_factory.mktemp("small") / "pictures")


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [sample_subject(1, number) for number in range(1, 1201)]


def test_number_of_processes_changes_no_byte(files: dict[str, bytes], tmp_path: Path) -> None:
    assert drawn(tmp_path / "two", workers=2) == files


def test_fewer_pictures_are_the_first_of_more(files: dict[str, bytes], tmp_path: Path) -> None:
    fewer = drawn(tmp_path / "fewer", count=10)
    assert list(fewer) == sorted(files)[:10]
    assert all(files[name] == content for name, content in fewer.items())


def test_another_seed_draws_other_faces(files: dict[str, bytes], tmp_path: Path) -> None:
    assert not set(drawn(tmp_path / "other", seed=6).values()) & set(files.values())


def test_files_are_square_rgb_jpegs(tmp_path: Path) -> None:
    for name in drawn(tmp_path / "pictures", count=3, size=56):
        with Image.open(tmp_path / "pictures" / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (56, 56))


def test_morph_names(files: dict[str, bytes]) -> None:
    parsed = [re.fullmatch(r"(\d{6})_(\d{2})([MF])(\d{2})\.JPG", name) for name in files]
    assert len(parsed) == 24
    gender_of = {match[1]: match[3] for match in parsed if match}
    of_subject = Counter(match[1] for match in parsed if match)
    assert sum(of_subject.values()) == 24
    assert max(of_subject.values()) <= 6
    men, women = (list(gender_of.values()).count(letter) for letter in "MF")
    assert abs(men - women) <= 1
    assert all(match and 16 <= int(match[4]) <= 77 for match in parsed)


def test_utkface_names(files: dict[str, bytes], tmp_path: Path) -> None:
    utkface = drawn(tmp_path / "utkface", names="utkface")
    parsed = [re.fullmatch(r"(\d+)_([01])_([0-4])_(\d{17})\.jpg", name) for name in utkface]
    assert all(parsed)
    assert len({match[4] for match in parsed if match}) == 24
    # The same pictures under other names, so 0 stands for M.
    assert sorted(utkface.values()) == sorted(files.values())
    letter_of = {content: name[9] for name, content in files.items()}
    assert all((name.split("_")[1] == "0") == (letter_of[content] == "M") for name, content in utkface.items())


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        draw_faces(replace(SMALL, out=tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        draw_faces(replace(SMALL, out=tmp_path / "file"))


def test_draws_into_an_empty_folder(tmp_path: Path) -> None:
    assert len(drawn(tmp_path, count=2)) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"size": 31}, {"seed": -1}, {"quality": 0}, {"workers": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refuses_options_out_of_range(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        draw_faces(replace(SMALL, out=tmp_path / "new", **wrong))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_leaves_nothing_behind_after_an_error(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(subject: Subject, picture: Picture, size: int) -> Image.Image:
        if next(calls) == 5:
            raise error
        return draw_face(subject, picture, size)

    calls = iter(range(100))
    monkeypatch.setattr("shard_tools.synthetic.files.draw_face", failing)
    with pytest.raises(error):
        draw_faces(replace(SMALL, out=tmp_path / "new"))
    assert next(calls) == 6
    assert not list(tmp_path.iterdir())


def test_two_that_draw_into_one_directory_exclude_each_other(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["synthetic", "--out", str(tmp_path / "new"), "--count", "2", "--size", "48"]
    before = iter(range(10))

    def drawing(subject: Subject, picture: Picture, size: int) -> Image.Image:
        if next(before, 1) == 0:
            other = subprocess.Popen([sys.executable, "-m", "shard_tools", *words], stdout=PIPE, stderr=PIPE, text=True)
            assert other.stdout is not None
            assert "new is locked by process" in other.stdout.readline()
            others.append(other)
        return draw_face(subject, picture, size)

    others: list[subprocess.Popen[str]] = []
    monkeypatch.setattr("shard_tools.synthetic.files.draw_face", drawing)
    (tmp_path / ".new.partial").mkdir()
    (tmp_path / ".new.partial" / "of one that was killed.jpg").write_bytes(b"")
    assert drawn(tmp_path / "new") == files
    with others[0] as other:
        _, error = other.communicate(timeout=60)
    assert other.returncode == 2
    assert error.startswith(f"shard-tools: {tmp_path}/new was finished or removed by another process: look at it")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_summary_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(tmp_path / "new", count=4)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "4 pictures" in out
    assert str(tmp_path / "new") in out


def test_pictures_of_a_subject_differ_but_look_alike() -> None:
    faces: list[npt.NDArray[np.float64]] = []
    owners: list[int] = []
    for number in range(1, 25):
        subject = sample_subject(2, number)
        for picture in sample_pictures(2, subject)[:2]:
            image = draw_face(subject, picture, 48).crop((10, 6, 38, 40)).resize((14, 17), Image.Resampling.BOX)
            faces.append(np.asarray(image, dtype=np.float64).ravel())
            owners.append(number)
    x, owner = np.stack(faces), np.array(owners)
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).mean(axis=2))
    same = (owner[:, None] == owner[None]) & ~np.eye(len(owner), dtype=bool)
    other = owner[:, None] != owner[None]
    assert distance[same].min() > 2
    assert distance[same].mean() < 0.75 * distance[other].mean()


def test_pictures_of_a_subject_age_by_at_most_eight_years(subjects: list[Subject]) -> None:
    for subject in subjects[:50]:
        ages = [picture.age for picture in sample_pictures(1, subject)]
        assert ages == sorted(ages)
        assert ages[-1] - ages[0] <= 8


def test_subjects_are_balanced_and_of_all_ages(subjects: list[Subject]) -> None:
    assert sum(subject.man for subject in subjects) == len(subjects) // 2
    assert np.mean([subject.pictures for subject in subjects]) == pytest.approx(3, abs=0.25)
    ages = np.array([subject.age for subject in subjects])
    assert ages.min() >= 16
    assert ages.max() <= 77
    assert 30 < np.median(ages) < 45
    assert {subject.tone_group for subject in subjects} == set(range(5))


def normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def test_masculinity_tells_gender_as_often_as_documented(subjects: list[Subject]) -> None:
    right = np.mean([(subject.masculinity > 0) == subject.man for subject in subjects])
    assert right == pytest.approx(normal_cdf(SEPARATION / 2), abs=0.02)
    variance = 1 / sum(1 / spread**2 for spread in SPREAD.values())
    assert 0.95 < normal_cdf(SEPARATION / 2 / math.sqrt(1 + variance)) < 0.97


@pytest.mark.parametrize("trait", sorted(SPREAD.keys() - {"clothes"}))
def test_each_trait_correlates_with_gender_but_overlaps(trait: str, subjects: list[Subject]) -> None:
    men, women = (np.array([float(getattr(s, trait)) for s in subjects if s.man == man]) for man in (True, False))
    low, high = (men, women) if men.mean() < women.mean() else (women, men)
    assert high.mean() - low.mean() > 0.1
    # No threshold on a single trait gives gender away.
    thresholds = np.unique(np.concatenate([men, women]))
    best = max((np.mean(low <= t) + np.mean(high > t)) / 2 for t in thresholds)
    assert 0.6 < best < 0.94


def test_traits_together_tell_gender_well_but_not_always(subjects: list[Subject]) -> None:
    names = sorted(SPREAD.keys() - {"clothes"})
    x = np.array([[1.0, *(float(getattr(subject, name)) for name in names)] for subject in subjects])
    y = np.array([1.0 if subject.man else -1.0 for subject in subjects])
    half = len(y) // 2
    weights = np.linalg.lstsq(x[:half], y[:half], rcond=None)[0]
    assert 0.92 < np.mean(np.sign(x[half:] @ weights) == y[half:]) < 0.98
