"""What damages a packed data set: all take its directory, and damage the first shard of the training split."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shard_tools.tar import BLOCK, header

SHARD = "train/train-000000.tar"
SECOND = "train/train-000001.tar"
INDEX = "train/index.npy"


def picture(seed: int) -> Image.Image:
    """A picture that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((24, 20), Image.Resampling.BICUBIC)


def jpeg(seed: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


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


def rename_classes(content: dict[str, Any]) -> None:
    """As a data set of another version of the format might call them."""
    content["classes"] = ["a", "b"]
    for split in content["splits"].values():
        split["counts"] = dict(zip("ab", split["counts"].values(), strict=True))


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
    "other classes": (edited_json(rename_classes), ["its classes are not"]),
    "options a list": (edited_json(lambda content: content.update(options=[])), ["options must be a table, not []"]),
    "quarantined a word": (
        edited_json(lambda content: content.update(quarantined="x")),
        ["quarantined must be a whole number, not 'x'"],
    ),
    "samples a word": (
        edited_json(lambda content: split_of(content).update(samples="18")),
        ["splits.train.samples must be a whole number, not '18'"],
    ),
    "counts a list": (
        edited_json(lambda content: split_of(content).update(counts=[9, 9])),
        ["splits.train.counts must be a table, not [9, 9]"],
    ),
    "another sum": (edited_json(lambda content: split_of(content).update(samples=7)), ["do not add up to its 7"]),
    "another count": (
        edited_json(lambda content: split_of(content)["counts"].update(male=99)),
        [f"{INDEX}: has", "male samples, the manifest says 99"],
    ),
    "a hash that is none": (
        edited_json(lambda content: split_of(content)["shards"][0].update(sha256="123")),
        [f"the SHA-256 of {SHARD} is not one"],
    ),
    "a shard outside": (
        edited_json(lambda content: split_of(content)["shards"][0].update(file="../other.tar")),
        ["'../other.tar' is not a tar in train/"],
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
        [f"{INDEX}: has the shape (23,), the manifest says 24 samples"],
    ),
    "index header": (flipped(INDEX, 20), [f"{INDEX}: "]),
    "row of another shard": (indexed(put("shard", 77)), ["1 sample is in another shard", "in row 2"]),
    "row beyond its shard": (indexed(put("offset", 2**63)), ["1 sample is not within the shard", "in row 2"]),
    "rows out of order": (
        indexed(lambda index: index.__setitem__(slice(2, 4), index[3:1:-1])),
        ["1 sample is not behind the one before,", "in row 3"],
    ),
    "gender that is none": (indexed(put("gender", 5)), ["1 sample is of no gender", "in row 2"]),
    "stray tar": (written("train/train-000099.tar", b""), ["data/train: train-000099.tar is not in the manifest"]),
    "stray directory": (written("old/old-000000.tar", b""), ["data/old: old-000000.tar is not in the manifest"]),
    "unfinished": (written(".packing/part", b""), ["data/.packing: packing was not finished"]),
    "quarantine of another length": (
        written("quarantine/quarantine.csv", b'row,source,reason\n1,a,"two\nlines"\n'),
        ["quarantine.csv: lists 1 image, the manifest says 0"],
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
        ["KEY.json at byte", "has gender"],
    ),
    "another age": (
        spliced(lambda tar, s: replaced(b'"age":%.1f' % s["age"], b'"age":99.5')(tar, s)),
        ["KEY.json at byte", "has age 99.5, the index"],
    ),
    "another subject": (
        spliced(lambda tar, s: replaced(b'"subject":"%s' % s["subject"], b'"subject":"999999')(tar, s)),
        ["KEY.json at byte", "has subject '999999', the index"],
    ),
    "no group": (spliced(replaced(b'"group"', b'"grape"')), ["KEY.json at byte", "has group None, the index"]),
    "labels a list": (spliced(replaced(b'{"', b'["')), ["KEY.json at byte", "is no JSON"]),
    "another row in the index": (indexed(put("row", 4711)), ["KEY.json at byte", "the index 4711"]),
    "another image": (other_image, ["KEY.jpg at byte", "has changed since it was packed"]),
    "another key in the index": (indexed(put("key", b"nobody")), [f"{SHARD}: ", "is sample nobody in the index"]),
    "another length in the index": (indexed(put("length", 99)), ["KEY.jpg at byte", "99 in the index"]),
    "another place in the index": (
        indexed(lambda index: put("offset", index["offset"][2] + 1)(index)),
        ["sample KEY at byte", "is not there", "is not in the index"],
    ),
    "another look in the index": (
        indexed(put("appearance", 4711)),
        ["KEY.jpg at byte", "has another appearance than"],
    ),
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
    "key twice": (same_in_val("key"), ["1 key is of more than one sample: KEY"]),
    "subject in two splits": (
        same_in_val("subject"),
        ["data/train and ", "data/val: 1 subject is in both, as 2 samples and 1 sample: "],
    ),
    "image in two splits": (
        same_in_val("content"),
        ["data/val: 1 byte-identical image is in both, as 1 sample and 1 sample: KEY and "],
    ),
    "look-alikes in two splits": (
        same_in_val("appearance"),
        ["data/val: 1 picture that looks the same", "is in both, as 1 sample and 1 sample: KEY and "],
    ),
}


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def key_in(data: Path) -> str:
    key: bytes = row(data)["key"].item()
    return key.decode()
