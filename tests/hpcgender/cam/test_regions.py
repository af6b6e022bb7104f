"""The table by parts of the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgender.cam.regions import read_mask, read_names, region_rows, region_table
from shard_tools.base.errors import UserError


def test_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("1 skin\n\n17 left eye\n")
    assert read_names(tmp_path) == {1: "skin", 17: "left eye"}
    for content in ("", "1 skin\n1 nose\n", "one skin\n", "256 hat\n", "3\n"):
        (tmp_path / "names.txt").write_text(content)
        with pytest.raises(UserError, match=r"names\.txt"):
            read_names(tmp_path)
    with pytest.raises(UserError, match="1 skin"):
        read_names(tmp_path / "nowhere")


def test_the_centre_square_of_a_mask(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values[:, 1:5])
    assert read_mask(tmp_path / "b.png") is None
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    with pytest.raises(UserError, match="mode RGB"):
        read_mask(tmp_path / "c.png")


def test_evidence_by_parts(tmp_path: Path) -> None:
    # a: the left half is skin; b: the top quarter of the left half is; c has no mask; d does not decode.
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, :4] = 1
    Image.fromarray(half).save(tmp_path / "a.png")
    Image.fromarray(half * (np.arange(8) < 2)[:, None].astype(np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(half).save(tmp_path / "d.png")
    maps = np.array([[[4, -2], [0, 1]], [[1, 1], [1, 1]], [[9, 9], [9, 9]], [[np.nan] * 2] * 2], dtype=np.float32)
    parts, whole = region_rows(tmp_path, [b"a", b"b", b"c", b"d"], maps, {1: "skin", 2: "hair"})
    np.testing.assert_array_equal(whole, [7 / 4, 1, np.nan, np.nan])
    table = region_table(parts, whole, {1: "skin", 2: "hair"}, {"all": np.ones(4, dtype=bool)})
    (skin,) = table  # hair is in no mask
    assert (skin.average, skin.region, skin.images) == ("all", "skin", 2)
    assert skin.area == pytest.approx((0.5 + 0.125) / 2)
    assert skin.evidence == pytest.approx((2 + 1) / 2)
    assert skin.share == pytest.approx((1 + 0.125) / (7 / 4 + 1))
