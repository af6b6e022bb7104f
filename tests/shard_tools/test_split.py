from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.split import balance, first_of_equals, keep_own_splits, linked_groups, split_groups

keys = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60), st.integers(0, 3)), min_size=1)


@given(keys)
def test_linked_groups_are_the_connected_components(rows: list[tuple[int, int, int]]) -> None:
    groups = linked_groups(*(first_of_equals(np.array(column)) for column in zip(*rows, strict=True)))
    expected = list(range(len(rows)))
    for _ in rows:  # relax every pair as often as the longest chain needs
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                if any(x == y != 0 for x, y in zip(a, b, strict=True)):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert groups.tolist() == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(0, 3))
def test_a_group_is_in_one_split(groups: list[int], seed: int) -> None:
    numbers = np.array(groups, dtype=np.int32)
    split = split_groups(numbers, (0.6, 0.2, 0.2), seed)
    assert all(len(set(split[numbers == group])) == 1 for group in set(groups))


def test_splits_get_their_shares() -> None:
    split = split_groups(np.arange(1000, dtype=np.int32), (0.7, 0.2, 0.1), 0)
    assert np.bincount(split).tolist() == [700, 200, 100]


def test_seeds_deal_differently() -> None:
    first, second = (split_groups(np.arange(100, dtype=np.int32), (0.5, 0.5), seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_group_in_two_of_the_sources_splits_goes_to_training() -> None:
    kept, moved = keep_own_splits(np.array([0, 0, 2, 3], np.int32), np.array([1, 0, 1, 2], np.int8))
    assert kept.tolist() == [0, 0, 1, 2]
    assert moved == 1


def test_balance_takes_one_picture_of_each_subject_before_a_second() -> None:
    genders = np.array([0] * 6 + [1] * 12 + [-1] * 3, dtype=np.int8)
    subjects = np.array([1, 1, 2, 2, 3, 3] + [4] * 8 + [5, 5, 6, 0] + [7] * 3, dtype=np.uint64)
    taken = balance(genders, subjects, seed=0)
    assert taken.tolist() == sorted(taken.tolist())
    assert (genders[taken] == 0).sum() == 6
    men = subjects[taken][genders[taken] == 1].tolist()
    assert len(men) == 6
    assert {5, 6, 0, 4} == set(men)
    assert men.count(4) == 2  # each of the other subjects has given all it has
    assert balance(genders, subjects, seed=0).tolist() == taken.tolist()
    assert any(balance(genders, subjects, seed=seed).tolist() != taken.tolist() for seed in range(1, 9))


def test_balance_of_one_class_takes_nothing() -> None:
    assert balance(np.ones(5, dtype=np.int8), np.zeros(5, dtype=np.uint64), seed=0).tolist() == []
