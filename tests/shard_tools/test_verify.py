from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shard_tools.commands import UserError, parse_options
from shard_tools.images import content_hash, fingerprint
from shard_tools.manifest import Manifest, read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.sources.morph import Morph
from shard_tools.tar import BLOCK, header
from shard_tools.verify import VerifyConfig, verify
from shard_tools.verify.shard import ShardTask, check_shard


def picture(seed: int) -> Image.Image:
    """A picture that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC)


def jpeg(seed: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of each of 24 subjects, named as MORPH's."""
    folder = tmp_path_factory.mktemp("morph")
    for seed in range(48):
        name = f"{seed // 2:06d}_{seed % 2:02d}{'FM'[seed // 2 % 2]}{20 + seed}.JPG"
        (folder / name).write_bytes(jpeg(seed, quality=90))
    return folder


@pytest.fixture(scope="module")
def packed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures packed: 24 for training in several shards, 12 for validation and 12 for testing."""
    out = tmp_path_factory.mktemp("packed") / "data"
    pack(Morph(images=images, out=out, val=0.25, test=0.25, shard_mb=0.02))
    assert len(read_manifest(out).splits["train"].shards) >= 3
    return out


@pytest.fixture
def data(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed pictures, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "data"))


Check = Callable[..., list[str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Verifies and returns the lines printed; they are problems if and only if the exit code is 1."""

    def check(*directories: Path, code: int = 1, **options: Any) -> list[str]:
        capsys.readouterr()
        returned = verify(VerifyConfig(directories=directories, **{"workers": 1, **options}))
        lines = capsys.readouterr().out.splitlines()
        assert returned == code, lines
        return lines

    return check


# What damages a data set. All take its directory, and damage the first shard of the training split.

SHARD = "train/train-000000.tar"
SECOND = "train/train-000001.tar"
INDEX = "train/index.npy"


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def flipped(file: str, at: Callable[[np.void], int] | int) -> Callable[[Path], None]:
    """Flips a bit at a byte of a file; of a shard, at one counted from the third sample's row in the index."""

    def damage(data: Path) -> None:
        flip(data / file, at if isinstance(at, int) else at(row(data)))

    return damage


def row(data: Path, number: int = 2) -> np.void:
    found: np.void = np.load(data / INDEX)[number]
    return found


def label_at(sample: np.void) -> int:
    """Where the JSON of a sample begins."""
    return int(sample["offset"]) + BLOCK * -(-int(sample["length"]) // BLOCK) + BLOCK


def edited_json(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        path = data / "manifest.json"
        content = json.loads(path.read_text())
        changed = edit(content)
        path.write_text(json.dumps(content if changed is None else changed))

    return damage


def reseal(data: Path) -> None:
    """Makes the manifest's sizes and hashes those of the files: what was damaged must then be found by itself."""

    def edit(manifest: dict[str, Any]) -> None:
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                content = (data / shard["file"]).read_bytes()
                shard.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            index = data / split["name"] / "index.npy"
            split["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()

    edited_json(edit)(data)


def indexed(edit: Callable[[Any], object], split: str = "train") -> Callable[[Path], None]:
    """Changes the index of a split, and the manifest with it."""

    def damage(data: Path) -> None:
        index = np.load(data / split / "index.npy")
        edit(index)
        np.save(data / split / "index.npy", index)
        reseal(data)

    return damage


def put(column: str, value: object, number: int = 2) -> Callable[[Any], object]:
    def edit(index: Any) -> None:
        index[column][number] = value

    return edit


def spliced(change: Callable[[bytes, np.void], bytes]) -> Callable[[Path], None]:
    """Changes the bytes of the first shard, and the manifest with it."""

    def damage(data: Path) -> None:
        path = data / SHARD
        path.write_bytes(change(path.read_bytes(), row(data)))
        reseal(data)

    return damage


def replaced(old: bytes, new: bytes) -> Callable[[bytes, np.void], bytes]:
    """In the third sample's JSON, where the bytes are as many."""

    def change(tar: bytes, sample: np.void) -> bytes:
        at = label_at(sample)
        assert old in tar[at : at + 200]
        assert len(old) == len(new)
        return tar[:at] + tar[at : at + 200].replace(old, new, 1) + tar[at + 200 :]

    return change


def other_header(block: bytes) -> Callable[[bytes, np.void], bytes]:
    def change(tar: bytes, sample: np.void) -> bytes:
        at = int(sample["offset"])
        return tar[: at - BLOCK] + block + tar[at:]

    return change


def other_image(data: Path) -> None:
    """The third image is another, as long as the old one, and decodes: its content alone tells."""
    sample = row(data)
    path = data / SHARD
    image = jpeg(999, quality=60)
    assert len(image) <= sample["length"]
    content = path.read_bytes()
    at, end = int(sample["offset"]), int(sample["offset"] + sample["length"])
    path.write_bytes(content[:at] + image.ljust(end - at, b"\0") + content[end:])
    reseal(data)


def without_json(tar: bytes, sample: np.void) -> bytes:
    """The third sample's JSON is cut out."""
    return tar[: label_at(sample) - BLOCK] + tar[label_at(sample) + BLOCK :]


def image_last(tar: bytes, sample: np.void) -> bytes:
    """The third sample's JSON comes before its image."""
    start, middle, end = int(sample["offset"]) - BLOCK, label_at(sample) - BLOCK, label_at(sample) + BLOCK
    return tar[:start] + tar[middle:end] + tar[start:middle] + tar[end:]


def one_more(tar: bytes, sample: np.void) -> bytes:
    """A member is appended that is no image."""
    return tar[: -2 * BLOCK] + header(b"notes.txt", 0) + tar[-2 * BLOCK :]


def symlink() -> bytes:
    info = tarfile.TarInfo("000000.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info.tobuf(tarfile.USTAR_FORMAT)


def swap(data: Path) -> None:
    first, second = (data / SHARD).read_bytes(), (data / SECOND).read_bytes()
    (data / SHARD).write_bytes(second)
    (data / SECOND).write_bytes(first)


def cut(file: str, left: float) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        content = (data / file).read_bytes()
        (data / file).write_bytes(content[: int(len(content) * left)])

    return damage


def removed(file: str) -> Callable[[Path], None]:
    return lambda data: (data / file).unlink()


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        (data / file).parent.mkdir(exist_ok=True)
        (data / file).write_bytes(content)

    return damage


def same_in_val(*columns: str) -> Callable[[Path], None]:
    """The first row of the validation index gets what the third of the training index has."""

    def damage(data: Path) -> None:
        sample = row(data)

        def edit(index: Any) -> None:
            for column in columns:
                index[column][0] = sample[column]

        indexed(edit, "val")(data)

    return damage


def split_of(content: dict[str, Any]) -> Any:
    return content["splits"]["train"]


# What --fast must find, and so must a full check.
FAST = {
    "no manifest": (removed("manifest.json"), ["data: it has no manifest.json"]),
    "manifest a list": (edited_json(lambda content: []), ["manifest.json: is damaged"]),
    "manifest null": (written("manifest.json", b"null"), ["manifest.json: is damaged"]),
    "manifest cut": (cut("manifest.json", 0.5), ["manifest.json: is damaged"]),
    "manifest of other bytes": (written("manifest.json", bytes(range(128, 256))), ["manifest.json: is damaged"]),
    "manifest of another version": (
        edited_json(lambda content: content.update(version=99)),
        ["manifest.json: is not of format hpcgender-shards"],
    ),
    "splits a list": (edited_json(lambda content: content.update(splits=[1])), ["manifest.json: is damaged"]),
    "no splits": (edited_json(lambda content: content.update(splits={})), ["it has no splits"]),
    "other classes": (edited_json(lambda content: content.update(classes=["a", "b"])), ["its classes are not"]),
    "options a list": (edited_json(lambda content: content.update(options=[])), ["its options are no object"]),
    "quarantined a word": (edited_json(lambda content: content.update(quarantined="x")), ["quarantined"]),
    "samples a word": (edited_json(lambda content: split_of(content).update(samples="18")), ["count of split train"]),
    "counts a list": (edited_json(lambda content: split_of(content).update(counts=[9, 9])), ["split train"]),
    "another sum": (edited_json(lambda content: split_of(content).update(samples=7)), ["do not add up to its 7"]),
    "another count": (
        edited_json(lambda content: split_of(content)["counts"].update(male=99)),
        [f"{INDEX}: has", "male samples, the manifest says 99"],
    ),
    "a hash that is none": (
        edited_json(lambda content: split_of(content)["shards"][0].update(sha256="123")),
        [f"the SHA-256 of {SHARD} is none"],
    ),
    "a shard outside": (
        edited_json(lambda content: split_of(content)["shards"][0].update(file="../other.tar")),
        ["'../other.tar' is no tar in train/"],
    ),
    "a shard twice": (
        edited_json(lambda content: split_of(content)["shards"][1].update(split_of(content)["shards"][0])),
        ["split train has a shard twice"],
    ),
    "promised balance": (
        edited_json(lambda content: content["options"].update(balance="equal")),
        ["data/train: it was packed to be balanced but has"],
    ),
    "shard gone": (removed(SHARD), [f"{SHARD}: is missing"]),
    "shard cut": (cut(SHARD, 0.5), [f"{SHARD}: has", "bytes, the manifest says"]),
    "idx gone": (removed("train/train-000001.idx"), ["train/train-000001.idx: is missing"]),
    "idx of another number": (written("val/val-000000.idx", b"v1.2 3\n"), ["val/val-000000.idx: begins with"]),
    "index gone": (removed(INDEX), [f"{INDEX}: is missing"]),
    "index cut": (cut(INDEX, 0.9), [f"{INDEX}: cannot be read"]),
    "index empty": (written(INDEX, b""), [f"{INDEX}: cannot be read"]),
    "index longer": (lambda data: longer(data / INDEX), [f"{INDEX}: has", "bytes, its header says"]),
    "index of numbers": (
        lambda data: np.save(data / INDEX, np.zeros(24)),
        [f"{INDEX}: does not have the columns of an index"],
    ),
    "index of another length": (
        lambda data: np.save(data / INDEX, np.load(data / INDEX)[:-1]),
        [f"{INDEX}: has 23 rows, the manifest says 24 samples"],
    ),
    "index header": (flipped(INDEX, 20), [f"{INDEX}: "]),
    "row of another shard": (indexed(put("shard", 77)), ["1 samples are in another shard", "in row 2"]),
    "row beyond its shard": (indexed(put("offset", 2**63)), ["1 samples are not within their shard", "in row 2"]),
    "rows out of order": (
        indexed(lambda index: index.__setitem__(slice(2, 4), index[3:1:-1])),
        ["1 samples are not behind the one before them", "in row 3"],
    ),
    "gender that is none": (indexed(put("gender", 5)), ["1 samples are of no gender", "in row 2"]),
    "stray tar": (written("train/train-000099.tar", b""), ["data/train: train-000099.tar is not in the manifest"]),
    "stray directory": (written("old/old-000000.tar", b""), ["data/old: old-000000.tar is not in the manifest"]),
    "unfinished": (written(".packing/part", b""), ["data/.packing: packing was not finished"]),
    "quarantine of another length": (
        written("quarantine/quarantine.csv", b'row,source,reason\n1,a,"two\nlines"\n'),
        ["quarantine.csv: lists 1 images, the manifest says 0"],
    ),
}

# What only reading every byte can find. The third sample is named where it is the one that is damaged.
FULL = {
    "bit in an image": (flipped(SHARD, lambda s: s["offset"] + 300), [f"{SHARD}: its SHA-256", "KEY.jpg at byte"]),
    "bit in an image's header": (
        flipped(SHARD, lambda s: s["offset"] - BLOCK + 3),
        [f"{SHARD}: it has a damaged header at byte", "sample KEY at byte"],
    ),
    "bit in a header's checksum": (
        flipped(SHARD, lambda s: s["offset"] - BLOCK + 155),  # which tar programs do not look at
        [f"{SHARD}: its SHA-256", "sample KEY at byte"],
    ),
    "bit in JSON": (flipped(SHARD, lambda s: label_at(s) + 1), [f"{SHARD}: its SHA-256", "KEY.json at byte"]),
    "bit in a JSON's header": (
        flipped(SHARD, lambda s: label_at(s) - BLOCK),
        [f"{SHARD}: it has a damaged header at byte", "sample KEY at byte"],
    ),
    "bit between members": (
        flipped(SHARD, lambda s: label_at(s) - BLOCK - 1),
        [f"{SHARD}: its SHA-256", "KEY.jpg at byte", "is followed by other bytes than zeros"],
    ),
    "bit in the end": (flipped(SHARD, -1), [f"{SHARD}: its SHA-256", "broken end mark"]),
    "bit in an idx": (flipped("train/train-000000.idx", 60), ["train/train-000000.idx: line 2 is not that of"]),
    "idx longer": (lambda data: longer(data / "train/train-000000.idx"), ["train-000000.idx: it has more lines"]),
    "idx cut": (cut("train/train-000000.idx", 0.8), ["train/train-000000.idx: line 7 is not that of"]),
    "bit in the index": (flipped(INDEX, -1), [f"{INDEX}: its SHA-256 is not the manifest's"]),
    "shards swapped": (
        swap,
        [f"{SHARD}: its SHA-256", f"{SECOND}: its SHA-256", f"{SHARD}: 0", "is sample KEY in the index"],
    ),
    "shard empty": (cut(SHARD, 0), [f"{SHARD}: it ends at byte 0", "sample KEY at byte"]),
    "another gender": (
        spliced(lambda tar, s: replaced(b'"gender":%d' % s["gender"], b'"gender":%d' % (1 - s["gender"]))(tar, s)),
        ["KEY.json at byte", "says gender"],
    ),
    "another age": (
        spliced(lambda tar, s: replaced(b'"age":%.1f' % s["age"], b'"age":99.5')(tar, s)),
        ["KEY.json at byte", "says age 99.5, the index"],
    ),
    "another subject": (
        spliced(lambda tar, s: replaced(b'"subject":"%s' % s["subject"], b'"subject":"999999')(tar, s)),
        ["KEY.json at byte", "says subject '999999', the index"],
    ),
    "no group": (spliced(replaced(b'"group"', b'"grape"')), ["KEY.json at byte", "says group None, the index"]),
    "labels a list": (spliced(replaced(b'{"', b'["')), ["KEY.json at byte", "is no JSON"]),
    "another row in the index": (indexed(put("row", 4711)), ["KEY.json at byte", "the index 4711"]),
    "another image": (other_image, ["KEY.jpg at byte", "has changed since it was packed"]),
    "another key in the index": (indexed(put("key", b"nobody")), [f"{SHARD}: ", "is sample nobody in the index"]),
    "another length in the index": (indexed(put("length", 99)), ["KEY.jpg at byte", "99 in the index"]),
    "another place in the index": (
        indexed(lambda index: put("offset", index["offset"][2] + 1)(index)),
        ["sample KEY at byte", "is not there", "is not in the index"],
    ),
    "another look in the index": (indexed(put("appearance", 4711)), ["KEY.jpg at byte", "looks other than"]),
    "no JSON": (spliced(without_json), ["KEY.jpg at byte", "is not followed by the JSON of its sample"]),
    "JSON first": (spliced(image_last), ["KEY.json at byte", "does not follow the image of its sample"]),
    "one more member": (spliced(one_more), ["notes.txt at byte", "is neither an image nor JSON"]),
    "extension of another kind": (
        spliced(lambda tar, s: other_header(header(s["key"] + b".png", int(s["length"])))(tar, s)),
        ["KEY.png at byte", "is a jpg"],
    ),
    "name outside": (
        spliced(lambda tar, s: other_header(header(b"../evil.jpg", int(s["length"])))(tar, s)),
        [f"{SHARD}: '../evil.jpg' at byte", "is a name that leads outside", "sample KEY at byte"],
    ),
    "symbolic link": (
        spliced(other_header(symlink())),
        [f"{SHARD}: '000000.jpg' at byte", "is a symbolic link, not a plain file", "sample KEY at byte"],
    ),
    "key twice": (same_in_val("key"), ["1 keys are of more than one sample: KEY"]),
    "subject in two splits": (
        same_in_val("subject"),
        ["data/train and ", "data/val: 1 subjects are in both, as 2 and 1 samples: "],
    ),
    "image in two splits": (
        same_in_val("content"),
        ["data/val: 1 byte-identical images are in both, as 1 and 1 samples: KEY and "],
    ),
    "look-alikes in two splits": (
        same_in_val("appearance"),
        ["data/val: 1 pictures that look the same", "are in both, as 1 and 1 samples: KEY and "],
    ),
}


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def key_in(data: Path) -> str:
    key: bytes = row(data)["key"].item()
    return key.decode()


def test_what_was_packed_is_well(packed: Path, check: Check) -> None:
    shards = sum(len(split.shards) for split in read_manifest(packed).splits.values())
    assert check(packed, code=0) == [
        f"{packed}: 48 images in {shards} shards are as they were packed; no picture or subject is in two splits"
    ]
    assert check(packed, code=0, fast=True) == [
        f"{packed}: 48 images in {shards} shards; sizes, manifest and index agree, no shard was read"
    ]
    assert check(packed, code=0, leaks=True) == [f"{packed}: no picture or subject is in two splits"]


def test_drawn_faces_of_the_command_line_are_well(shards: Path, check: Check) -> None:
    assert "320 images" in check(shards, code=0)[0]


@pytest.mark.parametrize("damage", FAST)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "full"])
def test_what_files_and_sizes_tell_is_named(damage: str, fast: bool, data: Path, check: Check) -> None:
    make, says = FAST[damage]
    make(data)
    text = "\n".join(check(data, fast=fast))
    assert all(part in text for part in says), text


@pytest.mark.parametrize("damage", FULL)
def test_what_reading_every_byte_tells_is_named(damage: str, data: Path, check: Check) -> None:
    make, says = FULL[damage]
    key = key_in(data)
    make(data)
    text = "\n".join(check(data))
    assert all(part.replace("KEY", key) in text for part in says), text


@pytest.mark.parametrize("damage", ["another gender", "another image", "bit in an idx", "another key in the index"])
def test_one_damage_is_one_line(damage: str, data: Path, check: Check) -> None:
    FULL[damage][0](data)
    assert len(check(data)) == 1


@settings(deadline=None, max_examples=40)
@given(bit=st.integers(0, 8 * 30_000))
def test_any_flipped_bit_names_its_shard_and_sample(packed: Path, bit: int) -> None:
    path = packed / SECOND
    content = path.read_bytes()
    at = bit // 8 % len(content)
    rows = [sample for sample in np.load(packed / INDEX) if sample["shard"] == 1]
    whose = [s["key"].decode() for s in rows if s["offset"] <= at < s["offset"] + s["length"]]
    manifest = read_manifest(packed)
    first, second = manifest.splits["train"].shards[:2]
    try:
        flip(path, at, bit % 8)
        lines = list(check_shard(packed, ShardTask(second, packed / INDEX, first.samples)).lines())
    finally:
        path.write_bytes(content)
    assert lines[0].startswith(f"{path}: its SHA-256 is not the manifest's")
    assert all(any(f"{key}.jpg at byte" in line for line in lines) for key in whose)
    assert len(lines) < 6


def test_two_damaged_shards_are_both_named(data: Path, check: Check) -> None:
    flip(data / SHARD, 700)
    flip(data / "test/test-000000.tar", 700)
    lines = check(data, workers=2)
    assert sum(SHARD in line for line in lines) == 2
    assert sum("test/test-000000.tar" in line for line in lines) == 2
    assert len(lines) == 4


def test_all_problems_are_named_at_once(data: Path, check: Check) -> None:
    for damage in (
        flipped("val/val-000000.tar", 700),
        FULL["bit in an idx"][0],
        FAST["stray tar"][0],
        FAST["unfinished"][0],
        removed(SECOND),
    ):
        damage(data)
    text = "\n".join(check(data))
    for part in ("val-000000.tar: its SHA", "000000.idx: line 2", "train-000099.tar", ".packing", f"{SECOND}: is"):
        assert part in text


def test_a_shard_that_is_all_wrong_takes_few_lines(images: Path, tmp_path: Path, check: Check) -> None:
    pack(Morph(images=images, out=tmp_path / "data", val=0, test=0))
    cut(SHARD, 0)(tmp_path / "data")
    lines = check(tmp_path / "data")
    assert len(lines) == 21
    assert lines[-1] == f"{tmp_path / 'data' / SHARD}: and 31 more"  # size, hash, end, and 48 samples


def test_a_shard_is_read_on_after_damage(data: Path, check: Check) -> None:
    """Two damaged samples of one shard are both found, the second behind the damaged header of the first."""
    first, third = row(data, 0), row(data, 2)
    flip(data / SHARD, int(first["offset"]) - BLOCK)
    flip(data / SHARD, int(third["offset"]) + 300)
    text = "\n".join(check(data))
    assert f"sample {first['key'].decode()} at byte 512 is not there" in text
    assert f"{third['key'].decode()}.jpg at byte {third['offset']}" in text
    assert row(data, 1)["key"].decode() not in text


def test_a_tar_is_read_without_an_index_too(data: Path, check: Check) -> None:
    (data / INDEX).unlink()
    flip(data / SHARD, int(np.load(data / "val/index.npy")["offset"][0]) - 1)
    lines = check(data)
    assert [line for line in lines if "index.npy" in line] == [f"{data / INDEX}: is missing"]
    assert any(line.startswith(f"{data / SHARD}: it has a") for line in lines)


def test_look_alikes_are_no_leak_where_none_was_promised(data: Path, check: Check) -> None:
    same_in_val("appearance")(data)
    edited_json(lambda content: content["options"].update(near_duplicates=False))(data)
    assert check(data, leaks=True, code=0)


def test_names_in_damaged_files_do_not_reach_the_terminal(data: Path, check: Check) -> None:
    indexed(put("key", b"\x1b[31m\nred"))(data)
    lines = check(data)
    assert len(lines) == 1
    assert "sample ?[31m?red in the index" in lines[0]


# Between two data sets.


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A data set of another source: its second picture is one of the first data set, its third only looks like one."""
    for number, image in enumerate((jpeg(1000), jpeg(5, quality=90), jpeg(7, quality=90, optimize=True), jpeg(1003))):
        path = tmp_path / "images" / ("male" if number % 2 else "female") / f"p{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    assert fingerprint(jpeg(7, quality=90, optimize=True)).appearance == fingerprint(jpeg(7, quality=90)).appearance
    return Folders(images=tmp_path / "images", out=tmp_path / "other", val=0, test=0)


def without_looks(manifest: Manifest) -> None:
    """Makes the data set one that was packed without decoding."""
    for name in manifest.splits:
        indexed(lambda index: index["appearance"].fill(0), name)(manifest.root)


@pytest.mark.parametrize("looked", ["both", "neither", "first"])
def test_pictures_in_two_data_sets_are_named(looked: str, data: Path, folders: Folders, check: Check) -> None:
    pack(folders)
    if looked == "neither":
        without_looks(read_manifest(data))
    if looked != "both":
        without_looks(read_manifest(folders.out))
    lines = check(data, folders.out, leaks=True, workers=2 if looked == "neither" else 1)
    same = [line for line in lines if "1 byte-identical images are in both" in line]
    alike = [line for line in lines if "pictures that look the same" in line]
    assert len(same) == 1
    assert "000002_01F25" in same[0]
    assert "male-p1" in same[0]
    assert "000003_01M27 and female-p2" in "".join(alike)
    assert len(lines) == len(same) + len(alike)  # subjects of different sources are not compared


def test_subjects_are_compared_within_one_source_only(
    data: Path, images: Path, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((folders.images / "female").iterdir()) + sorted((folders.images / "male").iterdir()):
        path.write_bytes(jpeg(content_hash(path.read_bytes())))  # pictures of nobody else
    pack(folders)
    capsys.readouterr()
    assert verify(VerifyConfig(directories=(data, folders.out), leaks=True)) == 0
    said = capsys.readouterr()
    assert said.out == f"{data} and {folders.out}: no picture is in two of them\n"
    assert "do not mean the same people" in said.err

    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "000003_09M50.JPG").write_bytes(jpeg(2000))
    pack(Morph(images=tmp_path / "again", out=tmp_path / "second", val=0, test=1))
    capsys.readouterr()
    assert verify(VerifyConfig(directories=(data, tmp_path / "second"), leaks=True)) == 1
    said = capsys.readouterr()
    assert "second/test: 1 subjects are in both, as 2 and 1 samples: 000003_0" in said.out
    assert said.out.count("\n") == 1
    assert not said.err


def test_several_data_sets_are_each_verified(packed: Path, data: Path, check: Check) -> None:
    assert len(check(packed, data, code=0)) == 2
    flip(data / SHARD, 700)
    assert all(line.startswith(str(data)) for line in check(packed, data))


def test_what_cannot_work_is_said(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg(0))
    for options, says in (
        ({"directories": ()}, "no data set given"),
        ({"directories": (tmp_path / "nowhere",)}, "no data set in"),
        ({"directories": (packed, tmp_path / "pictures")}, "no data set in"),
        ({"directories": (packed,), "fast": True, "leaks": True}, "--fast or --leaks"),
        ({"directories": (packed,), "workers": 0}, "--workers 0"),
    ):
        with pytest.raises(UserError, match=says):
            verify(VerifyConfig(**options))


def test_the_command_line_is_that_of_the_documentation() -> None:
    given = parse_options(VerifyConfig, "shard-tools verify", ["A", "B", "--leaks", "--workers", "3"])
    assert given == VerifyConfig(directories=(Path("A"), Path("B")), leaks=True, workers=3)
