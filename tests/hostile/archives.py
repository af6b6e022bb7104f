"""RecordIO and tars: what is not damaged is packed with its labels, and nothing leads out of the directory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.commands import SHARD_TOOLS
from shard_tools.manifest import read_manifest
from tests.hostile.base import Base
from tests.hostile.checkpoints import evaluated, reads
from tests.hostile.images import quarantined
from tests.hostile.mutations import damaged, text_damaged
from tests.hostile.workers import REFUSED, RIGHT, Done, command
from tests.shard_tools.others_tars import face, packed
from tests.violations import ViolationError

BLOCK = 512


def greedy(raw: bytes) -> bytes:
    """The bytes as xz that asks for a dictionary of 4 GB, and needs none of it."""
    file = bytearray(lzma.compress(raw))
    begin, size = 12, 4 * (file[12] + 1)  # of the header of the first block
    at = file.index(b"\x21\x01", begin) + 2  # LZMA2, and one byte, the size of the dictionary
    file[at] = 40
    file[begin + size - 4 : begin + size] = zlib.crc32(file[begin : begin + size - 4]).to_bytes(4, "little")
    return bytes(file)


def outcome(done: Done, out: Path) -> Counter[str]:
    """The counts of a pack that is right, or refused with nothing that looks finished."""
    if done.code == 0:
        return Counter({RIGHT: 1})
    if (out / "manifest.json").exists():
        raise ViolationError(f"it was refused, but there is a manifest: {done.err}")
    return Counter({REFUSED: 1})


def recordio(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`pack ms1mv2` of records, their index or their labels with damage."""
    shutil.copytree(base.rec, work / "rec")
    name = draw.choice(("train.rec", "train.rec", "train.idx", "genders.txt"))
    path = work / "rec" / name
    if name == "train.rec":
        path.write_bytes(damaged(path.read_bytes(), draw))
    else:
        path.write_bytes(text_damaged(path.read_text(), draw, str(base.canary)).encode(errors="surrogatepass"))
    if draw.random() < 0.2:
        (work / "rec" / "train.idx").unlink()
    out = work / "out"
    done = command(
        SHARD_TOOLS, "pack", "ms1mv2", "--rec", work / "rec" / "train.rec", "--labels", work / "rec" / "genders.txt",
        *("--by", "key", "--male", 1, "--female", 0, "--unknown-value=-1", "--out", out, "--workers", 1),
        *("--val", 0, "--test", 0),
    )  # fmt: skip
    counts = outcome(done, out)
    if counts[RIGHT] and name != "genders.txt":
        labels = dict(line.split() for line in (base.rec / "genders.txt").read_text().splitlines())
        for row in read_manifest(out).index("train"):
            key = int(row["key"].decode().partition("+")[0].rpartition("-")[2])
            if name == "train.rec" and str(int(row["gender"])) != labels.get(str(key), str(int(row["gender"]))):
                raise ViolationError(f"record {key} has another gender than in the list")
    return counts


def member(
    tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    """Adds a member to a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)


def sparse(name: str, size: int) -> bytes:
    """A member in GNU's sparse format 1.0 that claims to be `size` bytes long, and has none."""
    data = b"1\n0\n0\n".ljust(BLOCK, b"\0")
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
        info.pax_headers, info.size = pax, len(data)
        tar.addfile(info, io.BytesIO(data))
    return file.getvalue()[: -2 * BLOCK].rstrip(b"\0").ljust(3 * BLOCK + BLOCK, b"\0")


def hostile_tar(base: Base, draw: random.Random) -> tuple[bytes, set[str]]:
    """A tar with one trick, between samples that must be packed; their keys."""
    good = [face(number) for number in (1, 2, 4, 5)]
    jpeg = good[0]["jpg"]
    canary = str(base.canary)
    many = json.dumps({"gender": 1, "x": "y" * 200}).encode()
    trick = draw.randrange(20)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for number, sample in enumerate(good):
            if number == 2:
                match trick:
                    case 0:
                        member(tar, "../../../../escaped.jpg", jpeg)
                        member(tar, "../../../../escaped.json", many)
                    case 1:
                        member(tar, canary, jpeg)
                        member(tar, f"{canary}.jpg", jpeg)
                    case 2:
                        member(tar, "link.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd")
                        member(tar, "link.json", many)
                    case 3:
                        member(tar, "hard.jpg", kind=tarfile.LNKTYPE, link="/etc/passwd")
                        member(tar, "hard.json", many)
                    case 4:
                        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
                            member(tar, f"device{kind!r}.jpg", kind=kind)
                    case 5:
                        tar.fileobj.write(sparse("sparse.jpg", 1 << 40))
                        tar.offset = tar.fileobj.tell()
                    case 6:
                        for _ in range(3):
                            member(tar, "twice.jpg", jpeg)
                            member(tar, "twice.json", many)
                    case 7:
                        member(tar, "a" * 90 + ".jpg", jpeg)
                        member(tar, "\n\x1b[2J;$(touch x).jpg", jpeg)
                        member(tar, "\n\x1b[2J;$(touch x).json", many)
                    case 8:
                        member(tar, "deep.jpg", jpeg)
                        member(tar, "deep.json", b"[" * 100_000)
                    case 9:
                        member(tar, "deeper.jpg", jpeg)
                        member(tar, "deeper.json", b'{"gender":' * 50_000 + b"1" + b"}" * 50_000)
                    case 10:
                        member(tar, "int.jpg", jpeg)
                        member(tar, "int.json", b'{"gender":' + b"1" * 10_000 + b"}")
                    case 11:
                        member(tar, "odd.jpg", jpeg)
                        member(tar, "odd.json", b'{"gender": "\\ud800", "age": 1e999}')
                    case 12:
                        member(tar, "pickle.jpg", jpeg)
                        member(tar, "pickle.pyd", b"cos\nsystem\n(S'touch " + canary.encode() + b"'\ntR.")
                        member(tar, "pickle.pkl", b"cos\nsystem\n(S'touch " + canary.encode() + b"'\ntR.")
                        member(tar, "pickle.pth", b"cos\nsystem\n(S'touch " + canary.encode() + b"'\ntR.")
                        member(tar, "pickle.json", many)
                    case 13:
                        info = tarfile.TarInfo("pax.jpg")
                        info.size = len(jpeg)
                        info.pax_headers = {"path": "../../../../pax.jpg", "size": str(1 << 50), "mtime": "nan"}
                        tar.addfile(info, io.BytesIO(jpeg))
                    case 14:
                        for count in range(3000):
                            member(tar, f"{count}/")
                    case 15:
                        member(tar, ".hidden.jpg", jpeg)
                        member(tar, "", jpeg)
                        member(tar, "...jpg", jpeg)
                        member(tar, "/.jpg", jpeg)
                    case 16:
                        member(tar, "n" * (3 << 20) + ".jpg", jpeg)
                    case 17:
                        member(tar, "label.jpg", jpeg)
                        member(tar, "label.json", b"[" + b"1," * (45 << 20) + b"1]")
                    case 18:
                        for _ in range(20_000):
                            member(tar, "twice.json")
                    case _:
                        member(tar, "large.jpg", bytes(300 << 20))
                        member(tar, "large.json", many)
            for suffix in ("jpg", "json"):
                content = sample[suffix] if suffix == "jpg" else json.dumps(sample[suffix]).encode()
                member(tar, f"{sample['__key__']}.{suffix}", content)
    ends = trick in (5, 13, 16)  # what follows a header with a false size, or one without end, is not found
    return file.getvalue(), {f"{number:05d}" for number in ((1, 2) if ends else (1, 2, 4, 5))}


def tar(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`pack webdataset` of a tar that is damaged, or built to harm."""
    path, expected = work / "a.tar", set[str]()
    if draw.random() < 0.4:
        raw, expected = hostile_tar(base, draw)
    else:
        raw = damaged(base.tar.read_bytes(), draw)
    if draw.random() < 0.2:
        compress = draw.choice((gzip.compress, bz2.compress, lzma.compress, greedy))
        raw = compress(raw)
        if compress is greedy:
            expected = set()
        elif draw.random() < 0.5:
            raw, expected = damaged(raw, draw), set()
    path.write_bytes(raw)
    out = work / "out"
    done = command(
        SHARD_TOOLS, "pack", "webdataset", "--urls", path, "--label", "json:gender", "--male", 1, "--female", 0,
        *("--unknown-value=-1", "--age", "json:age", "--optional", "age", "--val", 0, "--test", 0, "--workers", 1),
        *("--out", out),
    )  # fmt: skip
    counts = outcome(done, out)
    if expected:
        if not counts[RIGHT]:
            raise ViolationError(f"a whole tar is refused because of one member: {done.err}")
        found = packed(out)
        if missing := expected - {key.partition("+")[0] for key in found}:
            raise ViolationError(f"samples {sorted(missing)} are lost; {quarantined(out)}")
    if counts[RIGHT]:
        for sample, labels in packed(out).items():
            key = sample.partition("+")[0]
            if key in {f"{n:05d}" for n in range(8)} and expected and labels[1] != int(key) % 3 - 1:
                raise ViolationError(f"sample {key} has the gender {labels[1]}")
    return counts


def data_set(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """A data set that was damaged or edited: `verify` says so, and what reads it is right or refuses it."""
    data = work / "shards"
    shutil.copytree(base.shards, data)
    paths = sorted(path for path in data.rglob("*") if path.is_file() and path.name != "summary.txt")
    kind = draw.choice(("manifest.json", "index.npy", ".tar", ".idx"))
    path = draw.choice([path for path in paths if path.name.endswith(kind)])
    before = path.read_bytes()
    if kind == "manifest.json" and draw.random() < 0.7:
        path.write_text(json.dumps(edited(json.loads(before), draw, str(base.canary))))
    elif kind == "index.npy" and draw.random() < 0.5:
        path.write_bytes(edited_index(before, draw))
    else:
        path.write_bytes(damaged(before, draw))
    changed = path.read_bytes() != before
    found = command(SHARD_TOOLS, "verify", data, "--workers", 1)
    if changed and found.code == 0 and kind != "manifest.json":
        raise ViolationError(f"verify finds nothing, although {path.name} was changed")
    command(SHARD_TOOLS, "verify", data, "--fast")
    command(SHARD_TOOLS, "verify", data, "--leaks")
    command(SHARD_TOOLS, "inspect", data)
    reads(data)
    evaluated(base, data, work)
    return Counter({RIGHT if found.code == 0 else REFUSED: 1})


VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, "", "x", "é", "\ud800", "a\0b", "a\nb"),
    *("../../../../etc/passwd", "/etc/passwd", "/dev/zero", "$(touch CANARY)", "<script>alert(1)</script>", [], {}),
    *([1], {"a": 1}, ["male", "female"], "x" * 70_000),
)


def edited(content: object, draw: random.Random, canary: str) -> object:
    """JSON's content with one to three values replaced, removed, renamed or added, at any depth."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = content
        while isinstance(at, dict | list) and at:
            key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            inner = at[key]
            if isinstance(inner, dict | list) and inner and draw.random() < 0.75:
                at = inner
                continue
            how = draw.randrange(5)
            value = draw.choice(VALUES)
            value = value.replace("CANARY", canary) if isinstance(value, str) else value
            if how == 0:
                del at[key]
            elif how == 1 and isinstance(at, dict):
                at[draw.choice(("x", "", f"{key}_", "__class__"))] = at.pop(key)
            elif how == 2 and isinstance(inner, int | float) and not isinstance(inner, bool):
                at[key] = draw.choice((-inner, inner + 1, inner - 1, inner * 2, float(inner) + 0.5))
            elif how == 3 and isinstance(at, list):
                at.append(inner)
            else:
                at[key] = value
            break
    return content


def edited_index(raw: bytes, draw: random.Random) -> bytes:
    """An index.npy with values that its samples cannot have, or another array."""
    index = np.load(io.BytesIO(raw)).copy()
    file = io.BytesIO()
    how = draw.randrange(10)
    rows = [draw.randrange(len(index)) for _ in range(3)]
    if how == 0:
        index["offset"][rows] = draw.choice((0, 1, 2**40, 2**63, 2**64 - 1))
    elif how == 1:
        index["length"][rows] = draw.choice((0, 1, 2**31, 2**32 - 1))
    elif how == 2:
        index["shard"][rows] = draw.choice((1, 99, 2**32 - 1))
    elif how == 3:
        index["gender"][rows] = draw.choice((2, -2, 127, -128))
    elif how == 4:
        index["age"][rows] = draw.choice((np.nan, np.inf, -5, 1e30))
    elif how == 5:
        index["key"][rows] = draw.choice((b"", b"\xff\xfe", b"../x", b"a\nb", b"<b>"))
    elif how == 6:
        index = np.array([{"a": 1}] * len(index), dtype=object)
    elif how == 7:
        index = draw.choice((index[::-1], index[:0], index.reshape(1, -1), np.zeros(()), np.zeros(len(index))))
    elif how == 8:
        index = index[[name for name in index.dtype.names if name != draw.choice(index.dtype.names)]]
    else:
        header = raw.index(b"\n")
        words = (b"{" * 60, b"__import__('os')", b"(1,)" * 9, b"'descr'", b"\0" * 9, b"1" * 60, b"[" * 90)
        return (
            raw[:10]
            + damaged(draw.choice((raw[10:header], draw.choice(words)))[: header - 10], draw).ljust(header - 10)[
                : header - 10
            ]
            + raw[header:]
        )
    np.save(file, index, allow_pickle=True)
    return file.getvalue()
