"""Anyone's WebDataset is packed: written by the library webdataset, and read by it from files, HTTP and commands."""

from __future__ import annotations

import csv
import gzip
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import webdataset
from pyarrow import parquet

from shard_tools.base.errors import UserError
from shard_tools.commands.finalize import FinalizeConfig
from shard_tools.manifest import read_manifest
from shard_tools.pack import finalize, pack
from shard_tools.sources.tar_stream import read_samples
from shard_tools.sources.webdataset import Webdataset
from tests.conftest import Run
from tests.shard_tools.pictures import digest, picture

STATED = {"male": ("1",), "female": ("0",), "unknown_value": ("-1",)}
Samples = Sequence[dict[str, Any]]


def jpeg(seed: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, form)
    return buffer.getvalue()


def face(number: int) -> dict[str, Any]:
    """A sample as others write it: every third of unknown gender, as if of 5 people of 3 groups."""
    return {
        "__key__": f"{number:05d}",
        "jpg": jpeg(number),
        "cls": number % 3 - 1,
        "json": {
            "gender": number % 3 - 1,
            "age": 20 + number,
            "face": {"sex": ("", "woman", "man")[number % 3], "race": f"group {number % 2}"},
            "person": f"p{number % 5}",
        },
    }


def write(path: Path, samples: Samples, **options: Any) -> Path:
    with webdataset.TarWriter(str(path), **options) as tar:
        for sample in samples:
            tar.write(sample)
    return path


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a-000.tar, a-001.tar and a-002.tar of 12, 12 and 6 samples."""
    directory = tmp_path_factory.mktemp("tars")
    for number, last in enumerate((12, 24, 30)):
        write(directory / f"a-{number:03d}.tar", [face(n) for n in range(12 * number, last)])
    return directory


def source(out: Path, *urls: object, label: str = "json:gender", **options: Any) -> Webdataset:
    options = {"val": 0.0, "test": 0.0, "workers": 1, **STATED, **options}
    return Webdataset(urls=tuple(map(str, urls)), label=label, out=out, **options)


def packed(out: Path) -> dict[str, tuple[Any, ...]]:
    """Hash of the image, gender, age, subject and group of every sample that was packed, by key."""
    manifest = read_manifest(out)
    return {
        row["key"].decode(): (
            int(row["content"]),
            int(row["gender"]),
            float(row["age"]),
            row["subject"].decode(),
            row["group"].decode(),
        )
        for split in manifest.splits
        for row in manifest.index(split)
    }


def left_out(out: Path) -> dict[str, str]:
    """The reason for every row of the quarantine, by what follows the last directory of its name."""
    if not (out / "quarantine").exists():
        return {}
    with (out / "quarantine" / "quarantine.csv").open(newline="") as file:
        return {row["source"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}


def test_labels_from_fields_texts_and_tables_are_the_same(tars: Path, tmp_path: Path) -> None:
    urls = f"{tars}/a-{{000..002}}.tar"
    faces = [face(number) for number in range(30)]
    rows = [(f["__key__"], f["cls"], f["json"]["age"], f["json"]["person"], f["json"]["face"]["race"]) for f in faces]
    names = ("id", "sex", "years", "who", "race")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *reversed(rows)])
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    parquet.write_table(pyarrow.table({name: list(column) for name, column in columns.items()}), tmp_path / "labels.pq")

    fields: dict[str, Any] = {"age": "json:age", "subject": "json:person", "group": "json:face.race"}
    of_table: dict[str, Any] = {"age": "table:years", "subject": "table:who", "group": "table:race", "table_key": "id"}
    ways: dict[str, dict[str, Any]] = {
        "field": {"label": "json:gender", **fields},
        "words": {"label": "json:face.sex", "male": (), "female": (), **fields},
        "text": {"label": "cls", **fields},
        "csv": {"label": "table:sex", "table": tmp_path / "labels.csv", **of_table},
        "parquet": {"label": "table:sex", "table": tmp_path / "labels.pq", **of_table},
    }
    for name, options in ways.items():
        pack(source(tmp_path / name, urls, **options))
    expected = packed(tmp_path / "field")
    assert {key: values[1:] for key, values in expected.items()} == {
        f["__key__"]: (f["cls"], f["json"]["age"], f["json"]["person"], f["json"]["face"]["race"]) for f in faces
    }
    assert all(packed(tmp_path / name) == expected for name in ways)
    assert (
        "gender from json:face.sex (in words, turned to 0 female 1 male)"
        in read_manifest(tmp_path / "words").convention
    )


def test_the_shards_of_this_project_can_be_packed_again(shards: Path, tmp_path: Path) -> None:
    manifest = read_manifest(shards)
    tars = [shards / shard.file for split in manifest.splits.values() for shard in split.shards]
    places = {"age": "json:age", "subject": "json:subject", "group": "json:group"}
    pack(source(tmp_path / "out", *tars, **places))
    assert packed(tmp_path / "out") == packed(shards)


def test_groups_splits_and_ages_have_the_meaning_that_is_stated(tmp_path: Path) -> None:
    samples = [
        {**face(number), "json": {"sex": "F" if number % 2 else "M", "age": age, "race": number % 2, "part": part}}
        for number, (age, part) in enumerate([("20-29", "a"), ("more", "b"), (33.5, "a"), (None, "b")])
    ]
    tar = write(tmp_path / "a.tar", samples)
    stated: dict[str, Any] = {
        "ages": {"more": "80"},
        "groups": {"0": "x", "1": "y"},
        "splits": {"a": "train", "b": "test"},
    }
    places = {"age": "json:age", "group": "json:race", "split": "json:part"}
    pack(source(tmp_path / "out", tar, label="json:sex", male=(), female=(), **places, **stated))
    assert [values[1:] for _, values in sorted(packed(tmp_path / "out").items())] == [
        (1, 24.5, "", "x"), (0, 80, "", "y"), (1, 33.5, "", "x"), (0, -1, "", "y")
    ]  # fmt: skip
    assert {name: split.samples for name, split in read_manifest(tmp_path / "out").splits.items()} == {
        "train": 2,
        "test": 2,
    }


class Server:
    """Serves a directory to this machine alone and counts what is asked for."""

    def __init__(self, directory: Path) -> None:
        self.requests: Counter[str] = Counter()
        requests = self.requests

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(directory))

            def do_GET(self) -> None:
                requests[self.path] += 1
                super().do_GET()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(tars: Path) -> Iterator[Server]:
    if not shutil.which("curl"):
        pytest.skip("webdataset reads http with curl, which is not installed")
    served = Server(tars)
    yield served
    served.close()


def test_files_http_and_commands_give_the_same_images(tars: Path, server: Server, tmp_path: Path) -> None:
    pack(source(tmp_path / "file", f"file:{tars}/a-{{000..002}}.tar"))
    pack(source(tmp_path / "http", f"{server.url}/a-{{000..002}}.tar"))
    pack(source(tmp_path / "pipe", f"pipe:cat {tars}/a-{{000..001}}.tar", f"pipe:gzip < {tars}/a-002.tar"))
    assert len(packed(tmp_path / "file")) == 30
    assert packed(tmp_path / "http") == packed(tmp_path / "pipe") == packed(tmp_path / "file")
    assert server.requests == {f"/a-{number:03d}.tar": 1 for number in range(3)}
    manifest = read_manifest(tmp_path / "http")
    with tarfile.open(tmp_path / "http" / manifest.split("train").shards[0].file) as tar:
        labels = json.load(tar.extractfile("00013.json") or io.BytesIO())
    assert labels["source"] == f"{server.url}/a-001.tar::00013"
    assert labels["row"] == 13


def test_processes_and_tasks_change_no_byte_and_read_each_url_once(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/a-{{000..002}}.tar"
    pack(source(tmp_path / "one", url))
    for workers in (2, 3):
        pack(source(tmp_path / "more", url, workers=workers))
        assert digest(tmp_path / "more") == digest(tmp_path / "one")
        shutil.rmtree(tmp_path / "more")
    server.requests.clear()
    for task in ("2/2", "1/2"):
        with pytest.raises(UserError, match=r"lacks parts|holds no parts"):
            finalize(FinalizeConfig(out=tmp_path / "tasks"))
        pack(source(tmp_path / "tasks", url, task=task))
    finalize(FinalizeConfig(out=tmp_path / "tasks", workers=1))
    assert digest(tmp_path / "tasks") == digest(tmp_path / "one")
    assert server.requests == {f"/a-{number:03d}.tar": 1 for number in range(3)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pack_that_is_killed_resumes_and_reads_no_tar_again(tars: Path, tmp_path: Path, workers: int) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    urls = [f"pipe:echo {n} >> {log}; cat {tars}/a-00{n}.tar" for n in range(2)]
    urls.append(f"pipe:echo 2 >> {log}; until [ -e {go} ]; do sleep 0.05; done; cat {tars}/a-002.tar")
    words = ["--label", "json:gender", "--male", "1", "--female", "0", "--unknown-value=-1"]
    command = [sys.executable, "-m", "shard_tools", "pack", "webdataset", "--urls", *urls, *words]
    command += ["--workers", str(workers), "--out"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed")], start_new_session=True)
    try:
        while len(list((tmp_path / "killed").glob(".packing/looked/*.rows"))) < 2 or "2" not in log.read_text():
            assert killed.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    go.touch()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert Counter(log.read_text().split()) == {"0": 1, "1": 1, "2": 2}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_a_tar_that_has_changed_since_is_read_again(tmp_path: Path) -> None:
    tar = write(tmp_path / "a.tar", [face(number) for number in range(6)])
    pack(source(tmp_path / "out", tar, task="1/1"))
    out = tmp_path / "parts"
    pack(source(out, tar, task="1/2"))
    pack(source(out, tar, task="2/2"))
    write(tar, [face(number) for number in range(9)])
    os.utime(tar, ns=(1, 1))
    with pytest.raises(UserError, match=r"lacks parts .*--task 1/2"):
        finalize(FinalizeConfig(out=out))
    pack(source(out, tar, task="1/2"))
    finalize(FinalizeConfig(out=out, workers=1))
    assert len(packed(out)) == 9


def test_what_cannot_be_used_is_in_the_quarantine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples: list[dict[str, Any]] = [face(number) for number in range(12)]
    del samples[0]["jpg"]
    del samples[1]["json"]
    samples[2]["json"] = {"age": 1}
    samples[3]["json"] = {"gender": "3"}
    samples[4]["json"] = {"gender": [1]}
    samples[5]["json"] = b"{"
    samples[6]["jpg"] = b"\xff\xd8\xffdamaged"
    samples[7]["png"] = jpeg(7, "PNG")
    samples[8]["JPG"] = samples[8].pop("jpg")
    del samples[9]["jpg"], samples[9]["json"]["age"]
    samples[9]["png"] = jpeg(9, "PNG")
    write(tmp_path / "a.tar", samples)
    write(tmp_path / "b.tar", [face(10), {**face(10), "jpg": jpeg(100)}, face(11)])
    pack(source(tmp_path / "out", tmp_path / "{a,b}.tar", age="json:age", optional=("age",)))
    assert left_out(tmp_path / "out") == {
        "a.tar::00000": "it has no image with the suffix jpg or jpeg or png or webp or bmp",
        "a.tar::00001": "it has no json:gender",
        "a.tar::00002": "it has no json:gender",
        "a.tar::00003": "its gender '3' is not stated to be male, female or unknown, as by --male 1",
        "a.tar::00004": "its json:gender is not a single value",
        "a.tar::00005": "its json is no JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "a.tar::00006": left_out(tmp_path / "out")["a.tar::00006"],
        "b.tar::00010.jpg": "its sample has a file with this suffix already",
        "b.tar::00010.json": "its sample has a file with this suffix already",
        "b.tar::00010.cls": "its sample has a file with this suffix already",
    }
    assert (
        "not decode" in left_out(tmp_path / "out")["a.tar::00006"]
        or "image" in left_out(tmp_path / "out")["a.tar::00006"]
    )
    assert set(packed(tmp_path / "out")) == {"00007", "00008", "00009", "00010+10", "00010+12", "00011+11", "00011+16"}
    printed = capsys.readouterr().out
    assert "10 images left out, listed in quarantine/quarantine.csv:" in printed
    assert "  2: it has no json:gender" in printed


@pytest.mark.parametrize("compressed", [False, True])
def test_no_truncated_tar_loses_a_sample_silently(tars: Path, tmp_path: Path, compressed: bool) -> None:
    content = (tars / "a-002.tar").read_bytes()
    content = gzip.compress(content, 1) if compressed else content.rstrip(b"\0") + bytes(1024)
    damaged = tmp_path / "a.tar"
    end_of_archive = 0 if compressed else 512  # tarfile reads one block of zeros as the end, writers write two
    for length in range(0, len(content) - end_of_archive, 217 if compressed else 256):
        damaged.write_bytes(content[:length])
        *samples, end = read_samples(str(damaged))
        assert end.key == ""
        assert "truncated" in end.problem
        assert all(not sample.problem for sample in samples)
    damaged.write_bytes(content)
    assert [sample.key for sample in read_samples(str(damaged))] == [f"{number:05d}" for number in range(24, 30)]


def test_damage_within_a_tar_is_noticed(tars: Path, tmp_path: Path) -> None:
    content = (tars / "a-002.tar").read_bytes()
    headers = []
    with tarfile.open(tars / "a-002.tar") as tar:
        headers = [member.offset for member in tar]
    path = tmp_path / "a.tar"
    for offset in headers:
        path.write_bytes(content[:offset] + b"?" + content[offset + 1 :])
        assert list(read_samples(str(path)))[-1].problem == f"the tar is damaged: there is no header at byte {offset}"
    path.write_bytes(content + content)
    samples = list(read_samples(str(path)))
    assert len(samples) == 7
    assert "goes on after its end" in samples[-1].problem
    packed_again = gzip.compress(content, 1)
    path.write_bytes(packed_again[:-8] + bytes(8))
    assert "CRC check failed" in list(read_samples(str(path)))[-1].problem
    with tarfile.open(path, "w"):
        pass
    assert [sample.problem for sample in read_samples(str(path))] == ["the tar has no samples"]


def test_members_of_every_kind_are_followed(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name in ("dir", "0.jpg", "link.jpg", f"{'long/' * 25}1.jpg", "README", ".hidden.jpg"):
                member = tarfile.TarInfo(name)
                member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
                member.type = {"dir": tarfile.DIRTYPE, "link.jpg": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE)
                member.size = 700 if member.isreg() else 0
                tar.addfile(member, io.BytesIO(bytes(700)))
        assert [(sample.key, sample.problem) for sample in read_samples(str(path))] == [
            ("0", ""),
            (f"{'long/' * 25}1", ""),
        ]


def test_a_truncated_tar_is_packed_as_far_as_it_goes(tars: Path, tmp_path: Path) -> None:
    content = (tars / "a-002.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 3])
    (tmp_path / "no.tar").write_text("<html>not here</html>")
    pack(source(tmp_path / "out", tmp_path / "{a,no}.tar", tars / "a-000.tar"))
    reasons = left_out(tmp_path / "out")
    assert reasons["a.tar"].startswith("the tar is truncated or damaged, samples may be missing: ")
    assert reasons["no.tar"].startswith("the tar is truncated or damaged, samples may be missing: ")
    assert "00024" in packed(tmp_path / "out")
    assert len(packed(tmp_path / "out")) >= 13


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("{server}/none.tar", "cannot read {server}/none.tar: the download failed with exit code 22; after"),
        ("http://127.0.0.1:9/a.tar", "cannot read http://127.0.0.1:9/a.tar: the download failed with exit code 7;"),
        ("pipe:exit 3", "cannot read pipe:exit 3: its command failed with exit code 3; after"),
        ("pipe:cat {tars}/a-001.tar; exit 4", "a-001.tar; exit 4: its command failed with exit code 4; after"),
        ("s3://bucket/a.tar", "cannot read s3://bucket/a.tar: s3://bucket/a.tar: no gopen handler defined; after"),
        ("{tars}", "cannot read {tars}: Is a directory; after"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_stops_the_pack(
    tars: Path, server: Server, tmp_path: Path, url: str, says: str
) -> None:
    names = {"server": server.url, "tars": str(tars)}
    urls = [str(tars / "a-000.tar"), url.format(**names)]
    with pytest.raises(UserError) as error:
        pack(source(tmp_path / "out", *urls))
    assert says.format(**names) in str(error.value)
    assert len(list((tmp_path / "out").glob(".packing/looked/*.rows"))) == 1  # what was read is kept


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"urls": ("a-{0..1.tar",)}, "--urls: Unbalanced braces: 'a-{0..1.tar'; give several"),
        ({"urls": ("a-${X}.tar",)}, "--urls: missing environment variable wds_WDS_X; give several"),
        ({"urls": ("-",)}, "--urls -: standard input can be read by one process alone"),
        ({"urls": ()}, "--urls names no tar"),
        ({"urls": ("none.tar",)}, "cannot read none.tar: No such file or directory; give tars as --urls"),
        ({"label": "table:sex"}, "table:sex is a column of a table: give its file as --table"),
        ({"table": Path("labels.csv")}, "no label is taken from labels.csv: give one as table:COLUMN, or no --table"),
        ({"label": "table:sxe", "table": "TABLE"}, "labels.csv 'sxe': did you mean sex?"),
        ({"label": "table:sex", "table": "TABLE", "table_key": "id"}, "unknown column of"),
        ({"label": "table:sex", "table": "TABLE"}, "labels.csv has no row for its key (the first row's is 'x')"),
        ({"label": "json:sex"}, "none of 12 images can be used, the first because it has no json:sex"),
        ({"age": "json:aeg"}, "none of 12 images can be used, the first because it has no json:aeg"),
        ({"optional": ("gender",)}, "unknown label in --optional 'gender'"),
        ({"female": ("1",)}, "'1' is stated to be more than one of male, female and unknown"),
        ({"female": ("0", "-1"), "male": ("2",), "unknown_value": ("1",)}, "no sample is male, which 2 in json:gender"),
        ({"label": "json:age", "unknown_value": tuple(map(str, range(99)))}, "more than one of male"),
        ({"image": "tiff"}, "none of 12 images can be used, the first because it has no image with the suffix tiff"),
    ],
)  # fmt: skip
def test_options_that_cannot_work(tars: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    (tmp_path / "labels.csv").write_text("key,sex\nx,1\ny,0\n")
    given = {**options, **({"table": tmp_path / "labels.csv"} if options.get("table") == "TABLE" else {})}
    urls = given.pop("urls", (tars / "a-000.tar",))
    with pytest.raises(UserError) as error:
        pack(source(tmp_path / "out", *urls, **given))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_rows_of_a_table_that_contradict_each_other(tmp_path: Path) -> None:
    tar = write(tmp_path / "a.tar", [face(number) for number in range(4)])
    (tmp_path / "labels.csv").write_text("key,sex\n00000,1\n00001,0\n00002,1\n00001,1\n00000,1\n00003,0\n")
    pack(source(tmp_path / "out", tar, label="table:sex", table=tmp_path / "labels.csv"))
    assert left_out(tmp_path / "out") == {"a.tar::00001": "rows of labels.csv contradict each other about its key"}
    assert {key: values[1] for key, values in packed(tmp_path / "out").items()} == {"00000": 1, "00002": 1, "00003": 0}


def test_the_command_and_a_dry_run(run: Run, tars: Path, tmp_path: Path) -> None:
    words = ("--label", "json:gender", "--male", 1, "--female", 0, "--unknown-value=-1", "--image", "jpg")
    command = ("shard_tools", "pack", "webdataset", "--urls", "a-{000..002}.tar", *words, "--out", tmp_path / "out")
    tried = run(*command, "--dry-run", cwd=tars)
    assert tried.returncode == 0, tried.stderr
    assert "30 images of webdataset: gender from json:gender (0 is female, 1 is male" in tried.stdout
    assert not (tmp_path / "out").exists()
    done = run(*command, cwd=tars)
    assert done.returncode == 0, done.stderr
    assert tried.stdout.replace("nothing was written: a dry run", f"packed into {tmp_path / 'out'}") == done.stdout
    assert run("shard_tools", "verify", tmp_path / "out").returncode == 0
    again = run(*command[:4], "none.tar", *words, "--out", tmp_path / "other", cwd=tars)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
