from __future__ import annotations

import io
import string
import tarfile
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.tar import BLOCK, END, MAX_NAME, Member, TarError, blocks, header, members, padding

NAMES = st.text(string.ascii_letters + string.digits + "_-./ ", min_size=1, max_size=MAX_NAME)
PLAIN_NAMES = st.text(string.ascii_letters + string.digits + "_-.", min_size=1, max_size=MAX_NAME).filter(
    lambda name: name != ".."
)


def archive(*contents: tuple[str, bytes]) -> bytes:
    return b"".join(header(n.encode(), len(c)) + c + padding(len(c)) for n, c in contents) + END


def read(tar: bytes) -> list[Member]:
    return list(members(io.BytesIO(tar)))


def with_tarfile(info: tarfile.TarInfo, form: Literal[0, 1, 2] = tarfile.USTAR_FORMAT) -> bytes:
    return archive(("a.jpg", b"abc"))[: -len(END)] + info.tobuf(form) + END


def special(kind: bytes, name: str = "b.jpg", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def made(name: str = "b.jpg", **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in values.items():
        setattr(info, field, value)
    return info


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_header_is_what_tarfile_writes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name.encode(), size) == info.tobuf(tarfile.USTAR_FORMAT)


@given(st.lists(st.tuples(PLAIN_NAMES, st.binary(max_size=3 * BLOCK)), max_size=5))
def test_what_is_written_is_read(contents: list[tuple[str, bytes]]) -> None:
    tar = archive(*contents)
    found = read(tar)
    assert [(m.name, tar[m.offset : m.offset + m.size]) for m in found] == contents
    assert len(tar) == BLOCK * sum(blocks(m.size) for m in found) + len(END)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archived:
        assert [(m.name, m.offset_data, m.size) for m in archived] == found


def test_reading_may_begin_at_a_later_member() -> None:
    tar = archive(("a.jpg", b"abc"), ("a.json", b"{}"), ("b.jpg", b"def"))
    assert [m.name for m in members(io.BytesIO(tar), 2 * BLOCK)] == ["a.json", "b.jpg"]


@pytest.mark.parametrize(
    ("tar", "says"),
    [
        (archive(("../b.jpg", b"")), "'../b.jpg' at byte 0 is a name that leads outside"),
        (archive(("a/../../b.jpg", b"")), "leads outside"),
        (archive(("/etc/passwd", b"")), "leads outside"),
        (archive(("", b"")), "leads outside"),
        (with_tarfile(special(tarfile.SYMTYPE, link="/etc/passwd")), "'b.jpg' at byte 1024 is a symbolic link"),
        (with_tarfile(special(tarfile.LNKTYPE, link="a.jpg")), "is a hard link, not a plain file"),
        (with_tarfile(special(tarfile.DIRTYPE)), "is a directory"),
        (with_tarfile(special(tarfile.FIFOTYPE)), "is a pipe"),
        (with_tarfile(special(tarfile.CHRTYPE)), "is a device"),
        (with_tarfile(special(b"Z")), "is a special file"),
        (with_tarfile(made(mtime=0.5), tarfile.PAX_FORMAT), "is an extended header"),
        (with_tarfile(made("b" * 200), tarfile.GNU_FORMAT), "is an extended header"),
        (with_tarfile(made("d" * 80 + "/" + "b" * 80)), "that shard-tools does not write"),  # ustar's prefix field
        (with_tarfile(made(mtime=7)), "'b.jpg' at byte 1024 has a header that shard-tools does not write"),
        (with_tarfile(made(uname="me")), "that shard-tools does not write"),
        (with_tarfile(made(size=-512), tarfile.GNU_FORMAT), "that shard-tools does not write"),
        (header(b"b.jpg", -512) + END, "at byte 0"),  # a reader that believed it would go round for ever
        (header(b"b\0c.jpg", 0) + END, "that shard-tools does not write"),
        (header(b"b.jpg", 0)[:-1] + b"\1" + END, "damaged header at byte 0"),
        (archive(("a.jpg", b"abc"))[:-512], "broken end mark, or bytes after it, at byte 1024"),
        (archive(("a.jpg", b"abc")) + b"\0", "broken end mark, or bytes after it, at byte 1024"),
        (archive(("a.jpg", b"abc"))[: -len(END)], "it ends at byte 1024 without an end mark"),
        (archive(("a.jpg", b"abc"))[:514], "a.jpg at byte 512 is cut off"),
        (b"", "it ends at byte 0"),
        (b"not a tar" * 100, "damaged header at byte 0"),
    ],
)
def test_whatever_is_not_a_plain_file_is_refused(tar: bytes, says: str) -> None:
    with pytest.raises(TarError, match="byte") as error:
        read(tar)
    assert says in str(error.value)


@given(st.integers(0, BLOCK * 8 - 1))
def test_every_bit_of_a_header_counts(bit: int) -> None:
    tar = bytearray(archive(("a.jpg", b"abc")))
    tar[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TarError, match="byte"):
        read(bytes(tar))
