"""Averages, standard errors and differences against slow references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from hpcgender.cam.averages import Averages, MapSums, significant, sum_maps
from hpcgender.cam.faces import FaceSums
from hpcgender.cam.subgroups import Subgroups, Subset
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.distributed import Ranks
from hpcgender.inference.blocks import Blocks, read_rows, write_shard
from shard_tools.index import Index, index_dtype
from shard_tools.manifest import CLASSES

ALONE = Ranks(0, 1, torch.device("cpu"))
IMAGES = 400
GROUPS = np.array([b"", b"Asian", b"White"])


@pytest.fixture(scope="module")
def index() -> Index:
    """Labels of 400 images: some without gender, some without group."""
    rng = np.random.default_rng(0)
    index = np.zeros(IMAGES, index_dtype(8, 1, 5))
    index["key"] = [f"image{n}".encode() for n in range(IMAGES)]
    index["gender"] = rng.choice([-1, 0, 1], IMAGES, p=[0.1, 0.4, 0.5])
    index["group"] = rng.choice(GROUPS, IMAGES, p=[0.2, 0.3, 0.5])
    return index


@pytest.fixture(scope="module")
def maps(index: Index) -> np.ndarray:
    """Raw maps: men's have more in the first cell; two images do not decode."""
    maps = np.random.default_rng(1).normal(size=(IMAGES, 3, 2)).astype(np.float32)
    maps[index["gender"] == 1, 0, 0] += 2
    maps[[5, 80]] = np.nan
    return maps


@pytest.fixture(scope="module")
def log_odds(maps: np.ndarray) -> np.ndarray:
    means: np.ndarray = maps.mean((1, 2))
    return means


def chosen(index: Index, log_odds: np.ndarray, subset: Subset) -> np.ndarray:
    """Which images a subset has, by its definition."""
    there: np.ndarray = ~np.isnan(log_odds) & (index["gender"] == CLASSES.index(subset.gender))
    if subset.group:
        there &= index["group"] == subset.group.encode()
    if subset.outcome:
        there &= ((log_odds > 0) == (index["gender"] == 1)) == (subset.outcome == "correct")
    return there


def test_averages_are_of_raw_maps(index: Index, maps: np.ndarray, log_odds: np.ndarray, tmp_path: Path) -> None:
    subgroups = Subgroups(index, CLASSES)
    blocks = Blocks(np.arange(IMAGES), index["key"].copy(), 16)
    for shard in range(blocks.shards):
        place = blocks.images_of(shard)
        write_shard(tmp_path, blocks, shard, {"maps": maps[place], "log_odds": log_odds[place]})
    np.testing.assert_array_equal(read_rows(tmp_path, blocks, "maps", np.array([3, 17, 399])), maps[[3, 17, 399]])
    sums = sum_maps(tmp_path, blocks, subgroups, ALONE, (3, 2))
    pixels = np.random.default_rng(2).integers(0, 256, (IMAGES, 3, 4, 4))
    faces = np.zeros((subgroups.count, 3, 4, 4), dtype=np.int64)
    codes = subgroups.codes(blocks.samples, log_odds)
    np.add.at(faces, codes[codes >= 0], pixels[codes >= 0])
    found = Averages(subgroups, sums, faces)
    assert {average.name for average in found.averages} == {
        f"{gender}{which}" for gender in CLASSES for which in ("", " x Asian", " x White", " correct", " wrong")
    }
    for average in found.averages:
        of = chosen(index, log_odds, Subset(average.gender, average.group, average.outcome))
        assert average.images == of.sum()
        mean, error = found.arrays[f"{average.name}/mean"], found.arrays[f"{average.name}/standard_error"]
        np.testing.assert_allclose(mean, maps[of].mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(error, stats.sem(maps[of].astype(np.float64)), rtol=1e-9)
        np.testing.assert_allclose(found.arrays[f"{average.name}/face"], pixels[of].mean(0).transpose(1, 2, 0), 1e-6)


def test_differences_are_tested_as_scipy_does(index: Index, maps: np.ndarray, log_odds: np.ndarray) -> None:
    subgroups = Subgroups(index, CLASSES)
    sums = MapSums.zeros(subgroups.count, (3, 2))
    sums.add_maps(maps, subgroups.codes(np.arange(IMAGES), log_odds))
    found = Averages(subgroups, sums, np.zeros((subgroups.count, 3, 4, 4), dtype=np.int64))
    female, male, asian = (
        chosen(index, log_odds, subset) for subset in (Subset("female"), Subset("male"), Subset("female", "Asian"))
    )
    rest = female & ~asian & (index["group"] != b"")
    for name, first, second in (("male minus female", male, female), ("female: Asian minus the rest", asian, rest)):
        one, other = maps[first].astype(np.float64), maps[second].astype(np.float64)
        np.testing.assert_allclose(found.arrays[f"{name}/difference"], one.mean(0) - other.mean(0), atol=1e-12)
        z = (one.mean(0) - other.mean(0)) / np.hypot(stats.sem(one), stats.sem(other))
        adjusted = stats.false_discovery_control(2 * stats.norm.sf(np.abs(z)).ravel()).reshape(3, 2)
        np.testing.assert_array_equal(found.arrays[f"{name}/significant"], adjusted <= 0.05)
    assert found.arrays["male minus female/significant"][0, 0]
    by_name = {difference.name: difference for difference in found.differences}
    assert by_name["male minus female"].images == (male.sum(), female.sum())
    assert by_name["male minus female"].significant == found.arrays["male minus female/significant"].sum()


def test_few_false_discoveries_where_there_is_nothing() -> None:
    rng = np.random.default_rng(0)
    found = sum(bool(significant(rng.normal(size=(4, 4)), np.ones((4, 4))).any()) for _ in range(400))
    assert found <= 35  # 5 % of 400, and three standard deviations


def test_nothing_is_significant_of_few_images() -> None:
    index = np.zeros(49, index_dtype(1, 1, 1))
    index["gender"][20:] = 1
    subgroups = Subgroups(index, CLASSES)
    maps = np.where(index["gender"] == 1, 5.0, -5.0).astype(np.float32)[:, None, None]
    sums = MapSums.zeros(subgroups.count, (1, 1))
    sums.add_maps(maps, subgroups.codes(np.arange(49), maps[:, 0, 0]))
    (difference,) = Averages(subgroups, sums, np.zeros((subgroups.count, 3, 4, 4), dtype=np.int64)).differences
    assert (difference.images, difference.small, difference.significant) == ((29, 20), True, 0)


def test_mean_faces_are_sums_of_pixels() -> None:
    pixels = torch.randint(0, 256, (7, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = (pixels.float() - 127.5) / 127.5
    codes = np.array([0, 1, 1, -1, 0, 1, 0])
    assert torch.equal(to_pixels(images), pixels)
    faces = FaceSums(2, 5, torch.device("cpu"))
    faces.add(images[:3], codes[:3])
    faces.add(images[3:], codes[3:])
    for code in (0, 1):
        np.testing.assert_array_equal(faces.numpy()[code], pixels.numpy()[codes == code].sum(0))
