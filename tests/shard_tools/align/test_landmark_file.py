"""Lists of landmarks as their authors publish them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shard_tools.align.landmark_file import LandmarkFile
from shard_tools.base.errors import UserError
from shard_tools.images import ImageError

FIVE = [[69, 109], [106, 113], [77, 142], [73, 152], [108, 154]]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        (  # CelebA's list
            "2\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y "
            "leftmouth_x leftmouth_y rightmouth_x rightmouth_y\n"
            "000001.jpg 69 109 106 113 77 142 73 152 108 154\n000002.jpg 1 2 3 4 5 6 7 8 9 10\n",
            FIVE,
        ),
        (  # VGGFace2's: names without a suffix, points by number
            "NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y\n"
            '"000001",69.0,109.0,106.0,113.0,77.0,142.0,73.0,152.0,108.0,154.0\n',
            FIVE,
        ),
        (  # of RetinaFace, whose right eye is the person's, with boxes that are of no interest
            "file;x1;y1;x2;y2;score;right_eye_x;right_eye_y;left_eye_x;left_eye_y;nose_x;nose_y;mouth_right_x;"
            "mouth_right_y;mouth_left_x;mouth_left_y\n"
            "000001.jpg;40;60;140;180;0.99;69;109;106;113;77;142;73;152;108;154\n",
            FIVE,
        ),
        (  # eyes alone, the person's left one first
            "Photo,Left Eye X,Left Eye Y,Right Eye X,Right Eye Y\n000001.jpg,106,113,69,109\n",
            FIVE[:2],
        ),
    ],
)
def test_lists_of_other_projects_are_read(text: str, points: list[list[int]], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000001.jpg").touch()
    (face,) = LandmarkFile(tmp_path / "list.txt", tmp_path / "images").faces("000001.jpg")
    assert (face == points).all()


def test_several_faces_and_paths_of_another_machine(tmp_path: Path) -> None:
    lines = [f"/scratch/me/photos/x/{name}.jpg,{x},10,{x + 20},12" for name, x in (("a", 5), ("b", 7), ("a", 90))]
    (tmp_path / "eyes.csv").write_text("\n".join(["path,leye_x,leye_y,reye_x,reye_y", *lines]))
    (tmp_path / "photos" / "x").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "photos" / "x" / f"{name}.jpg").touch()
    found = LandmarkFile(tmp_path / "eyes.csv", tmp_path / "photos")
    assert [face[0, 0] for face in found.faces("x/a.jpg")] == [5, 90]
    assert len(found.faces("x/b.jpg")) == 1


def test_what_cannot_be_used_is_said_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "eyes.csv").write_text(
        "image,leye_x,leye_y,reye_x,reye_y\na.jpg,1,2,30,4\nb.jpg,1,2,,4\nc.jpg,5,2,5,40\nd.jpg,inf,2,30,4\n"
    )
    found = LandmarkFile(tmp_path / "eyes.csv", None)
    assert np.shape(found.faces("a.jpg")) == (1, 2, 2)
    for name, reason in {
        "b.jpg": "it has a landmark in eyes.csv that is no number",
        "c.jpg": "its eyes in eyes.csv are one above the other",
        "d.jpg": "it has a landmark in eyes.csv that is no number",
        "e.jpg": "it has no line in eyes.csv",
    }.items():
        with pytest.raises(ImageError, match=reason):
            found.faces(name)
    (tmp_path / "boxes.csv").write_text("image,x,y,w,h\na.jpg,1,2,3,4\n")
    with pytest.raises(UserError, match=r"has no column of the eyes: .* it has image, x, y, w, h"):
        LandmarkFile(tmp_path / "boxes.csv", None)
