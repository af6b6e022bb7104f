"""Tables, TOML files, records of runs, names, job names and overrides."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from hpcgender.commands import HPCGENDER
from hpcgender.data.augmentation import read_augmentation
from hpcgender.study.file import read_study
from jobs.records import Resources
from jobs.scheduler import Request
from jobs.sge.request import script as sge_script
from jobs.site import Site
from jobs.sites import read_site
from jobs.slurm.sbatch import script as slurm_script
from shard_tools.base.commands import plain_name
from shard_tools.base.errors import UserError
from shard_tools.commands import SHARD_TOOLS
from tests.hostile.archives import edited, outcome
from tests.hostile.base import Base
from tests.hostile.images import NAMES
from tests.hostile.mutations import WORDS, damaged, text_damaged
from tests.hostile.workers import REFUSED, RIGHT, command
from tests.shard_tools.tables import labels
from tests.violations import ViolationError

ROWS = 12
GENDERS = ("female", "male")


def table(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`pack table`: a table that is only written otherwise gives the same labels; in a spoilt one the other rows do."""
    images = work / "images"
    images.mkdir()
    rows: list[list[str]] = [["image", "gender", "age", "race"]]
    for number in range(ROWS):
        (images / f"{number:03d}.jpg").write_bytes(base.photos[number].read_bytes())
        rows.append([f"{number:03d}.jpg", GENDERS[number % 2], str(20 + number), f"group {number % 3}"])
    truth = {row[0][:3]: (GENDERS.index(row[1]), float(row[2]), row[3]) for row in rows[1:]}
    path = work / draw.choice(("t.csv", "t.tsv", "t.txt", "t.parquet", "t"))
    neutral = draw.random() < 0.5
    if draw.random() < 0.15:
        raw, neutral = parquet(rows, draw)
        untouched = set(truth) if neutral else set()
    elif neutral:
        raw, untouched = written(rows, draw), set(truth)
    else:
        raw, untouched = spoilt(rows, draw, str(base.canary))
    path.write_bytes(raw)
    out = work / "out"
    done = command(
        SHARD_TOOLS, "pack", "table", "--table", path, "--images", images, "--gender", "gender", "--age", "age",
        *("--group", "race", "--out", out, "--val", 0, "--test", 0, "--workers", 1),
    )  # fmt: skip
    counts = outcome(done, out)
    found = (
        {key: (row["gender"], row["age"], row["group"]) for key, row in labels(out).items()} if not done.code else {}
    )
    if neutral and found != truth:
        raise ViolationError(f"a table that is well has other labels: {done.err or found}")
    for key, label in found.items():
        if key in untouched and label != truth[key]:
            raise ViolationError(f"{key} has other labels, though nothing of its row was changed: {label}")
    return counts


def written(rows: list[list[str]], draw: random.Random) -> bytes:
    """The rows as some program writes them."""
    order = draw.sample(range(4), 4)
    rows = [[row[at] for at in order] for row in rows]
    if draw.random() < 0.3:  # quoted fields that hold more than one line
        rows = [[*row, "note" if not number else 'two\nlines, "quoted"'] for number, row in enumerate(rows)]
    if draw.random() < 0.2:
        rows = [[f" {cell} " if number else cell for cell in row] for number, row in enumerate(rows)]
    sign = draw.choice(",;\t|")
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=sign, quoting=draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=draw.choice(("\n", "\r\n")),
    )  # fmt: skip
    writer.writerows(rows)
    content = text.getvalue()
    if draw.random() < 0.2:
        content = f"sep={sign}\n{content}"
    elif draw.random() < 0.2:
        content = f"# made by a program\n{content}"
    if draw.random() < 0.2:
        content += draw.choice(("\n\n\n", f"{sign * (len(rows[0]) - 1)}\n", "\r\n"))
    return content.encode(draw.choice(("utf-8", "utf-8-sig", "utf-16")))


def spoilt(rows: list[list[str]], draw: random.Random, canary: str) -> tuple[bytes, set[str]]:
    """A table in which something is missing, doubled or odd, and the rows that are well."""
    raw = written(rows, draw)
    how = draw.randrange(7)
    if how == 0:
        return damaged(raw, draw), set()
    if how == 1:
        return text_damaged(raw.decode("utf-8", "replace"), draw, canary).encode("utf-8", "surrogatepass"), set()
    if how == 2:
        return raw.decode("utf-8", "replace").replace("group", "Größe").encode("latin-1", "replace"), set()
    changed = [list(row) for row in rows]
    for _ in range(draw.choice((1, 3))):
        at, cell = draw.randrange(len(changed)), draw.randrange(4)
        if how == 3:
            changed[at][cell] = draw.choice(WORDS).replace("CANARY", canary)
        elif how == 4:
            changed[at] = draw.choice(([], changed[at][:2], changed[at] + ["x"], [""] * 4))
            break
        elif how == 5:
            changed[at][1 if at else 0] = draw.choice(("", "F", "2", "unknown", "25-32", "(25, 32)", "60+", "1.0"))
        else:
            changed[at][2] = draw.choice(
                ("25-32", "(25, 32)", "60+", "24,5", "1e3", "-1", "131", "nan", "\uff12\uff10", "\u0663")
            )
    text = io.StringIO()
    csv.writer(text).writerows(changed)
    same = {row[0][:3] for row, now in zip(rows[1:], changed[1:], strict=True) if row == now}
    if changed[0] != rows[0] or sum(
        cell.startswith(name) for name in same for row in changed for cell in row[:1]
    ) > len(same):
        same = set()  # other columns, or an image in two rows
    return text.getvalue().encode("utf-8", "surrogatepass"), same


def parquet(rows: list[list[str]], draw: random.Random) -> tuple[bytes, bool]:
    """The rows as Parquet, whole or spoilt, and whether it says the same."""
    columns: dict[str, Any] = {name: [row[at] for row in rows[1:]] for at, name in enumerate(rows[0])}
    how = draw.randrange(7)
    neutral = how < 3
    if how == 1:
        columns["age"] = [float(age) for age in columns["age"]]
    elif how == 2:
        columns["gender"] = pa.array(columns["gender"]).dictionary_encode()
    elif how == 3:
        columns["gender"] = [{"a": 1}] * ROWS
    elif how == 4:
        columns["image"] = [[name] for name in columns["image"]]
    elif how == 5:
        columns["image"] = [name.encode() + b"\xff" for name in columns["image"]]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file)
    raw = file.getvalue()
    return (damaged(raw, draw), False) if how == 6 else (raw, neutral)


def toml(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """TOML files of options, of augmentation, of sites, of studies and of mappings."""
    kind = draw.choice(("train", "augment", "site", "study", "mapping"))
    texts = {
        "train": 'model = "resnet18"\nlr = 0.1\nepochs = 3\ntasks = ["gender", "age"]\nbatch_size = 8\n'
        f'augment = "light"\ndata = "{base.shards}"\nimage_size = 32\n',
        "augment": 'preset = "light"\nblur = 0.3\nblur_sigma = [0.5, 2]\nflip = 0.5\nrotation_degrees = 10\n',
        "site": 'scheduler = "slurm"\nqueue = "gpu"\ntime = "24h"\ncpus_per_node = 4\nmodules = ["cuda"]\n'
        'options = ["--constraint=a100"]\nscratch = "/scratch/$USER"\n[resource_types.rt_F]\ngpus = 4\ncpus = 8\n',
        "study": 'name = "s"\n[base]\nmodel = "compact"\nimage_size = 32\nepochs = 1\n[grid]\n'
        f'lr = [0.1, 0.2]\nseed = [1, 2]\n[evaluate]\ndata = ["{base.shards}"]\n',
        "mapping": 'image = "image"\ngender = "gender"\nage = "age"\n[groups]\na = "b"\n[splits]\nx = "train"\n',
    }  # fmt: skip
    path = work / f"{kind}.toml"
    if draw.random() < 0.1:
        text = draw.choice(
            ("[" * 5000, "a = " + "[" * 50_000, "a = {" * 5000, "a." * 5000 + "b = 1", "a = " + "1" * 9000)
        )
    else:
        text = text_damaged(texts[kind], draw, str(base.canary))
    raw = text.encode("utf-8", "surrogatepass")
    path.write_bytes(damaged(raw, draw) if draw.random() < 0.15 else raw)
    if kind == "train":
        return Counter({command(HPCGENDER, "train", "--config", path, "--print-config").verdict: 1})
    if kind == "mapping":
        (work / "images").mkdir()
        (work / "images" / "a.jpg").write_bytes(base.photos[0].read_bytes())
        (work / "t.csv").write_text("image,gender,age\na.jpg,male,3\n")
        words = ("--images", work / "images", "--table", work / "t.csv", "--mapping", path, "--out", work / "out")
        return Counter({command(SHARD_TOOLS, "pack", "table", *words, "--workers", 1, "--dry-run").verdict: 1})
    try:
        if kind == "augment":
            read_augmentation(str(path))
        elif kind == "site":
            read_site(str(path)).setup()
        else:
            list(read_study(path).trials)
    except UserError as error:
        if "\n" in str(error):
            raise ViolationError(f"more than a line: {error}") from None
        return Counter({REFUSED: 1})
    return Counter({RIGHT: 1})


def records(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """What commands left in a run's directory, edited or damaged, by what shows it: pages escape all of it."""
    runs = work / "runs"
    shutil.copytree(base.runs, runs, ignore=shutil.ignore_patterns("tensorboard"))
    paths = [path for path in runs.rglob("*") if path.is_file() and path.suffix in SHOWN]
    path = draw.choice(paths)
    raw = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and draw.random() < 0.8:
        lines = raw.decode().splitlines() if path.suffix == ".jsonl" else [raw.decode()]
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(edited(json.loads(lines[at]), draw, str(base.canary)))
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix in (".csv", ".toml", ".txt", ".jsonl") and draw.random() < 0.7:
        path.write_bytes(text_damaged(raw.decode(), draw, str(base.canary)).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(damaged(raw, draw))
    page, photo = work / "page.html", base.photos[0]
    evaluation = runs / "tiny" / "evaluations" / "shards-val"
    words = draw.choice((
        ("report", runs / "tiny", "--out", page),
        ("report", evaluation, "--out", page),
        ("matrix", runs / "tiny", "--html", page),
        ("compare", evaluation, base.run / "evaluations" / "shards-val", "--html", page),
        ("jobs", "--within", runs),
        ("jobs", "--within", runs, "--json"),
        ("jobs", "why", "tiny", "--within", runs),
        ("jobs", "logs", "tiny", "--within", runs),
        ("train", "--runs", runs, "--name", "tiny", "--resume", "--epochs", 1, "--data", base.shards),
        ("predict", "--checkpoint", runs / "tiny", "--evaluation", evaluation, "--backend", "torchvision", photo),
    ))  # fmt: skip
    done = command(HPCGENDER, *words)
    if page.exists():
        text = page.read_text()
        if "<script>alert" in text or "onerror=alert" in text:
            raise ViolationError("a page does not escape what it shows")
        if done.code == 2:
            raise ViolationError("the page was refused, and is there")
    if "\x1b[2J" in done.out:
        raise ViolationError("a record controls the terminal")
    return Counter({done.verdict: 1})


SHOWN = (".json", ".jsonl", ".csv", ".toml", ".txt", ".parquet", ".npy", ".npz")


def launched(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """Names, overrides and paths with signs of the shell, on command lines and in the scripts of both schedulers."""
    odd = draw.choice((*NAMES, *WORDS)).replace("CANARY", str(base.canary)).replace("\0", "")[:200]
    train = ("train", "--data", str(base.shards), "--runs", str(work / "runs"))
    how = draw.randrange(5)
    before = ("--dry-run", "--scheduler", "local")
    words = (
        (*before, "--job-name", odd, "--", *train),
        (*before, "--", *train, "--name", odd),
        (*before, "--", *train, draw.choice(("--lr", "--model", "--augment", "--track")), odd),
        ("--site", odd, "--dry-run", "--", *train),
        (*before, "--", "evaluate", "--checkpoint", str(base.run), "--data", str(base.shards), "--out", odd),
    )[how]
    done = command(HPCGENDER, "launch", *words)
    base.check_canary()
    for scheduler in (slurm_script, sge_script):
        script_runs(scheduler, odd, work, base)
    return Counter({done.verdict: 1})


def script_runs(make: Callable[[Request, Path], str], odd: str, work: Path, base: Base) -> None:
    """ViolationError unless a job's script, run by bash, gives its program the odd path as it is and runs it alone."""
    site = Site(name="s", scheduler="x", conda=odd or "x", modules=(odd,) if odd else ())
    record = work / f"runs{odd}x".replace("/", "_")[:120] / "submissions" / "%j"
    request = Request(name=plain_name(odd), site=site, resources=Resources(time_min=5))
    stubs = work / "stubs"
    stubs.mkdir(exist_ok=True)
    told = work / "told"
    told.write_bytes(b"")
    for name in ("python", "conda", "module"):
        (stubs / name).write_text(f'#!/bin/bash\nprintf "%s\\0" {name} "$@" >>"{told}"\n')
        (stubs / name).chmod(0o755)
    script = work / "script.sh"
    script.write_bytes(make(request, record).encode("utf-8", "surrogateescape"))
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", "SGE_STDOUT_PATH": "/dev/null", "HOME": str(work)}
    subprocess.run(["bash", script], env=environment, cwd=work, capture_output=True, timeout=30, check=False)
    base.check_canary()
    words = told.read_bytes().split(b"\0")
    if b"python" not in words:
        raise ViolationError(f"the script does not reach its program: {script.read_text(errors='replace')}")
    if os.fsencode(record) not in words or (odd and os.fsencode(odd) not in words):
        raise ViolationError(f"{odd!r} comes to the script's programs as {words!r}")
