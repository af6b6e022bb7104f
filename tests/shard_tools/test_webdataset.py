"""Anyone's WebDataset is packed: written by the library webdataset, and read by it from files, HTTP and commands."""

from __future__ import annotations

import csv
import errno
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import webdataset
from pyarrow import parquet

from shard_tools.base import storage
from shard_tools.base.errors import StorageError, UserError
from shard_tools.commands.finalize import FinalizeConfig
from shard_tools.manifest import read_manifest
from shard_tools.pack import finalize, pack
from shard_tools.sources import tar_stream
from tests.conftest import Run
from tests.shard_tools.others_tars import face, left_out, packed, source, write
from tests.shard_tools.pictures import digest


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


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("{server}/none.tar", "cannot read {server}/none.tar: the download failed with exit code 22; after"),
        ("http://127.0.0.1:9/a.tar", "cannot read http://127.0.0.1:9/a.tar: the download failed with exit code 7;"),
        ("pipe:exit 3", "cannot read pipe:exit 3: its command failed with exit code 3; after"),
        ("pipe:cat {tars}/a-001.tar; exit 4", "a-001.tar; exit 4: its command failed with exit code 4; after"),
        ("pipe:kill -9 $$", "cannot read pipe:kill -9 $$: its command was killed by SIGKILL; after"),
        ("pipe:exit 137", "pipe:exit 137: its command was killed by SIGKILL; after"),
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


class Failing(io.FileIO):
    """A file whose storage fails each time that a read reaches beyond a byte, until `left` is used up."""

    left = 0

    def readinto(self, buffer: Any) -> int | None:
        if self.tell() + len(buffer) > 20_000 and Failing.left:
            Failing.left -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer)


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_a_tar_whose_storage_fails_for_a_moment_is_read_on_and_one_that_goes_on_failing_is_the_storages_fault(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    tar = tmp_path / "a.tar"
    plain = (tars / "a-000.tar").read_bytes()
    tar.write_bytes(gzip.compress(plain, 0) if packing == "gzip" else plain)
    pack(source(tmp_path / "well", str(tar)))
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(tar_stream, "open", lambda path, mode: io.BufferedReader(Failing(path)), raising=False)
    monkeypatch.setattr(webdataset, "gopen", lambda url: io.BufferedReader(Failing(url)))
    Failing.left = 2
    pack(source(tmp_path / "out", str(tar)))
    assert Failing.left == 0
    assert packed(tmp_path / "out") == packed(tmp_path / "well")
    Failing.left = 100
    with pytest.raises(StorageError, match=r"a\.tar: Input/output error: its storage or the network to it fails"):
        pack(source(tmp_path / "other", str(tar)))
    Failing.left = 0
    pack(source(tmp_path / "other", str(tar)))
    assert packed(tmp_path / "other") == packed(tmp_path / "well")


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


def test_tars_are_read_without_importing_torch(tars: Path) -> None:
    code = (
        "import sys; from shard_tools.sources.tar_stream import read_samples; "
        "print(len(list(read_samples(sys.argv[1], {}))), 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tars / "a-000.tar")]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "12 False\n"
