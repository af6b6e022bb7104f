"""Tars of xz are read as lzma reads them, in bounded memory."""

from __future__ import annotations

import io
import lzma
import random

import pytest

from shard_tools.sources.xz import open_xz
from tests.hostile.archives import greedy

CONTENT = random.Random(1).randbytes(300_000) + bytes(3 << 20)


def test_several_streams_with_zeros_between_them_are_one_file() -> None:
    raw = lzma.compress(CONTENT, preset=9) + bytes(8) + lzma.compress(b"second")
    assert open_xz(io.BytesIO(raw)).read() == CONTENT + b"second"


def test_what_stands_behind_the_end_is_no_stream() -> None:
    assert open_xz(io.BytesIO(lzma.compress(CONTENT) + b"a signature of the publisher's")).read() == CONTENT


def test_a_file_that_is_cut_short_is_an_error() -> None:
    with pytest.raises(EOFError):
        open_xz(io.BytesIO(lzma.compress(CONTENT)[:-20])).read()


def test_a_dictionary_of_4_gb_is_refused_before_it_is_taken() -> None:
    raw = greedy(CONTENT)
    with pytest.raises(lzma.LZMAError, match="Memory usage limit"):
        open_xz(io.BytesIO(raw)).read()
