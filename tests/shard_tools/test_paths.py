from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shard_tools.base.errors import UserError
from shard_tools.sources.table import Table
from tests.shard_tools.tables import draw

NAMES = [f"{gender}/{number}.jpg" for gender in ("female", "male") for number in range(3)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw(tmp_path / "faces", NAMES)
    return tmp_path / "faces"


def listed(images: Path, paths: list[str], **options: Any) -> Table:
    """A table of these paths, of which the second half are men's."""
    genders = ["f" if 2 * n < len(paths) else "m" for n in range(len(paths))]
    rows = "".join(f"{path},{gender}\n" for path, gender in zip(paths, genders, strict=True))
    (images.parent / "t.csv").write_text(f"Image,Gender\n{rows}")
    return Table(table=(images.parent / "t.csv",), images=images, out=images.parent / "out", gender="gender", **options)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "./",
        "{images}/",
        "/home/somebody/data/",
        "C:\\Users\\Somebody\\",
        "faces/",
        "data/faces/",
    ],
)
def test_paths_of_other_machines_are_taken_where_one_meaning_fits(images: Path, prefix: str) -> None:
    start = prefix.format(images=images)
    table = listed(images, [(start + name).replace("/", "\\" if "\\" in start else "/") for name in NAMES])
    assert [(r.name, r.rejected) for r in table.records()] == [(name, "") for name in NAMES]
    elsewhere = start.replace("\\", "/") if start and start not in ("./", f"{images}/") else ""
    assert table.remarks() == (
        [f"paths of t.csv begin with {elsewhere}, which is taken for --images"] if elsewhere else []
    )


def test_a_link_to_the_images_and_where_it_leads_are_one_place(images: Path) -> None:
    link = images.parent / "link"
    link.symlink_to(images)
    for start in (images, link):
        table = listed(images, [f"{start}/{name}" for name in NAMES])
        table.images = link
        assert [(r.name, r.rejected) for r in table.records()] == [(name, "") for name in NAMES]


def test_names_that_may_be_other_images_are_not_taken(images: Path) -> None:
    """FairFace has other people in val/1.jpg than in train/1.jpg."""
    table = listed(images / "male", [f"/home/somebody/fairface/val/{n}.jpg" for n in range(3)])
    with pytest.raises(UserError, match=r"male/0\.jpg may be another image of that name") as raised:
        list(table.records())
    assert "'/home/somebody/fairface/val/0.jpg'" in str(raised.value)
    table = listed(images / "male", [f"/home/somebody/faces/male/{n}.jpg" for n in range(3)])
    assert [r.name for r in table.records()] == ["0.jpg", "1.jpg", "2.jpg"]
    # The advice works.
    table = listed(images / "male", [f"x/{n}.jpg" for n in range(3)], pattern=r"(?P<file>[^/]+)$", path="{file}")
    assert [r.name for r in table.records()] == ["0.jpg", "1.jpg", "2.jpg"]


def test_directories_that_fit_in_two_ways_are_not_taken(images: Path) -> None:
    draw(images, ["a/x/1.jpg", "x/1.jpg"])
    with pytest.raises(UserError, match="may be another image"):
        list(listed(images, ["/b/a/x/1.jpg", "/b/a/x/1.jpg"]).records())


def test_a_wrong_directory_of_images_is_named_with_a_path_that_was_looked_for(images: Path) -> None:
    (images.parent / "empty").mkdir()
    table = listed(images, NAMES)
    table.images = images.parent / "empty"
    with pytest.raises(UserError) as raised:
        list(table.records())
    assert f"looked for {images.parent}/empty/female/0.jpg: give the directory" in str(raised.value)
    table.images = images.parent
    with pytest.raises(UserError, match=f"did you mean --images {images}?"):
        list(table.records())


def test_images_that_are_missing_in_part_end_nothing(images: Path) -> None:
    table = listed(images, [f"female/{n}.jpg" for n in range(10, 400)] + NAMES)
    records = list(table.records())
    assert len(records) == 396
    assert not any(record.rejected for record in records)


def test_the_reason_that_most_rows_have_is_named(images: Path) -> None:
    (images.parent / "t.csv").write_text("image,gender,age\n" + "".join(f"{name},m,old\n" for name in NAMES))
    table = Table(table=(images.parent / "t.csv",), images=images, out=images, gender="gender", age="age")
    with pytest.raises(UserError, match=r"no row of t\.csv can be used, 6 because its age 'old' is neither"):
        list(table.records())
