from __future__ import annotations

import io
import re
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

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
        ("-.png", "image"),
        ("\u5f20\u4f1f.jpg", "image"),
        ("\u5f20/\u4f1f.jpg", "image"),
        (".hidden.jpg", "image"),
        ("male/.x.jpg", "male"),
        ("a\nb \udcfc.jpg", "a-b"),
        ("-" * 200 + "a" * 82 + "-b", "a" * 82 + "-b"),
        ("c" + "-b" * 50, "b" + "-b" * 41),
    ],
)
def test_a_key_is_the_name_without_what_a_key_must_not_hold(name: str, key: str) -> None:
    assert key_of(name) == key


@given(st.text(max_size=200), st.integers(0, 2**32))
def test_a_key_fits_in_a_header_and_needs_no_quoting(name: str, row: int) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key_of(name))
    assert len(key_of(name)) <= MAX_KEY
    assert len(f"{with_row(key_of(name), row)}.webp") <= 100


NAMES = st.text(st.characters() | st.sampled_from("._-/ __\n\udcfc"), max_size=150)


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_webdataset_reads_every_sample_whatever_its_file_was_called(names: list[str]) -> None:
    keys = [with_row(key_of(name), row) if row else key_of(name) for row, name in enumerate(names)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for key in keys:
            for suffix in ("jpg", "json"):
                tar.addfile(tarfile.TarInfo(f"{key}.{suffix}"))
    buffer.seek(0)
    files = ({**file, "__url__": ""} for file in tar_file_iterator(buffer))
    assert [sample["__key__"] for sample in group_by_keys(files)] == keys
