from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.keys import MAX_KEY, key_of, with_row


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("00000123", "00000123"),
        ("85741/05822653", "85741-05822653"),
        ("Training/male/a.jpg", "Training-male-a"),
        ("30_0_0_20170109.jpg.chip.jpg", "30_0_0_20170109"),
        ("J.Lo/J.Lo_0001.jpg", "J-Lo-J"),
        ("zwei Wörter.png", "zwei-W-rter"),
        ("../etc/passwd", "etc-passwd"),
        ("a//b", "a-b"),
        ("-.png", ""),
    ],
)
def test_a_key_is_the_name_without_what_a_key_must_not_hold(name: str, key: str) -> None:
    assert key_of(name) == key


@given(st.text(max_size=200), st.integers(0, 2**32))
def test_a_key_fits_in_a_header_and_needs_no_quoting(name: str, row: int) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]*", key_of(name))
    assert len(key_of(name)) <= MAX_KEY
    assert len(f"{with_row(key_of(name), row)}.webp") <= 100
