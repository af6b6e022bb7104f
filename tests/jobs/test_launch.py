"""`hpcgender launch`: what it refuses at once, what follows a command, and the log."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig, minutes
from hpcgender.launch import start
from hpcgender.launch.attempt import job_end
from hpcgender.launch.start import chained, unused
from hpcgender.launch.submit import request
from jobs.schedulers import find_allocation
from jobs.site import Site
from shard_tools.base import commands
from shard_tools.base.commands import Call, find_call, plain_name
from shard_tools.base.errors import UserError


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "hpcgender.launch", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=30)
    return done.returncode, done.stdout, done.stderr


def call(*words: str) -> Call[Any]:
    return find_call(PROGRAMS, words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--", "trian"), "hpcgender: unknown command 'trian': did you mean train?\n"),
        (("--", "launch"), "hpcgender: unknown command 'launch': known: cam, compare, doctor, evaluate"),
        (("--", "train", "--data", "nowhere"), "nowhere"),
        (
            ("train", "--name", "a"),
            "unknown option --name: did you mean --job-name?; options of the command stand after --:",
        ),
        (("--node", "2", "--", "train"), "hpcgender: unknown option --node: did you mean --nodes?\n"),
        (("--nodes", "0"), "hpcgender: --nodes 0: at least 1 is needed\n"),
        (("--time", "soon"), "hpcgender: --time soon: give a time such as 24h, 1d12h, 90m or 1:30:00\n"),
        (("--after", "mine"), "hpcgender: --after mine: 'mine' is no job's id"),
        (("--site", "nowhere"), "hpcgender: no site profile 'nowhere': give a TOML file, or one of abci, local,"),
        (("--chain", "eval", "--", "models"), "hpcgender: --chain: eval cannot follow models"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err = run(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_container_whose_program_is_missing_is_refused_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('scheduler = "local"\ncontainer = "no-apptainer exec hpc.sif"\n')
    code, out, err = run("--site", "site.toml", "--", "models", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("hpcgender: site site, container: there is no no-apptainer on "), err
    assert err.endswith(": give its path, or load it with modules\n")


def test_a_wrong_option_of_the_command_is_refused(tmp_path: Path) -> None:
    code, out, err = run("--", "train", "--epocs", "3", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "epocs" in err


def test_launching_a_training_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, hpcgender.launch.start, hpcgender.launch.submit, hpcgender.commands.train\n"
    code += "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_the_command_is_parsed_once_and_the_allocation_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            calls.append(function.__name__)
            return function(*arguments)

        return wrapped

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "parse_options", counted(commands.parse_options))
    monkeypatch.setattr(start, "find_allocation", counted(find_allocation))
    assert start.launch(LaunchConfig(command=("models",), scheduler="local")) == 0
    assert sorted(calls) == ["find_allocation", "parse_options"]


def test_a_requeued_training_resumes_without_being_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = call("train", "--name", "mine")
    monkeypatch.setattr(commands, "parse_options", None)
    again = first.resumed()
    assert (again.words, again.options.resume) == (("train", "--name", "mine", "--resume"), True)
    assert replace(again.options, resume=False) == first.options
    assert again.resumed() == again


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("24h", 1440), ("1d12h", 2160), ("90m", 90), ("45", 45), ("1:30:00", 90), ("2-00:00:00", 2880)],
)
def test_times_are_read_as_people_and_schedulers_write_them(text: str, expected: float) -> None:
    assert minutes(text, "--time") == expected


def test_a_command_says_where_its_results_are() -> None:
    assert call("train", "--name", "second").results == Path("runs/second")
    assert call("shard-tools", "verify", "data/x").results == Path("runs")
    assert call("pack", "morph", "--images", "x", "--out", "data/x").results == Path("data/x")
    with pytest.raises(UserError, match="nowhere"):
        call("train", "--data", "nowhere").check()


def test_job_names_are_plain() -> None:
    assert call("pack", "morph", "--images", "x", "--out", "a b'c $(x)").job_name == "pack_morph_a_b_c_x"
    assert plain_name("7th: run/2") == "job_7th_run_2"


def test_what_follows_a_command_uses_its_results() -> None:
    pack = call("pack", "morph", "--images", "x", "--out", "data/m o")
    train, evaluate, cam = chained(pack, ("train", "eval", "cam"))
    assert train.words == ("train", "--data", "data/m o", "--name", "m_o", "--resume")
    split = ("--checkpoint", "runs/m_o/checkpoints/best.pt", "--data", "data/m o", "--split", "test")
    assert evaluate.words == ("evaluate", *split)
    assert cam.words == ("cam", *split)
    with pytest.raises(UserError, match="train cannot follow evaluate"):
        chained(evaluate, ("train",))
    with pytest.raises(UserError, match="did you mean eval"):
        chained(train, ("evl",))


def test_the_log_is_synced_while_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "sync.py").write_text(
        "import os, sys, time\nopen('synced', 'w').write(f'{os.getpid()} {sys.argv[1]}')\ntime.sleep(600)\n"
    )
    sync = shlex.join([sys.executable, "sync.py", "{log}"])
    assert "se_resnet152" in launch_with(tmp_path, f"log_sync = {json.dumps(sync)}")
    pid, path = (tmp_path / "synced").read_text().split(" ", 1)
    assert path == str(tmp_path / "a log")
    assert not Path("/proc", pid).exists()


def test_a_log_that_cannot_be_synced_is_written_all_the_same(tmp_path: Path) -> None:
    log = launch_with(tmp_path, 'log_sync = "fsync-of-afs -d 30 {log}"')
    assert "launch: log_sync of site site: fsync-of-afs: No such file or directory\n" in log
    assert "se_resnet152" in log


def launch_with(directory: Path, setting: str) -> str:
    """What the log of a short command has that ran here, with a setting of the site."""
    (directory / "site.toml").write_text(f'scheduler = "local"\n{setting}\n')
    command = [sys.executable, "-m", "hpcgender.launch", "--", "models"]
    with (directory / "a log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, cwd=directory, timeout=120)
    return (directory / "a log").read_text()


def test_ranks_that_cannot_share_a_batch_are_refused_before_submission() -> None:
    training = call("train", "--batch-size", "16", "--data", "x")
    with pytest.raises(UserError, match="a global batch of 16 does not divide by 3 ranks"):
        request(LaunchConfig(nodes=3), training, Site(name="x", scheduler="slurm"))
    assert request(LaunchConfig(nodes=2), training, Site(name="x", scheduler="slurm")).resources.nodes == 2


def test_options_without_an_effect_are_reported() -> None:
    config = LaunchConfig(mem=32, attempts=5, cpus=8)
    assert list(unused(config, in_job=False, cpus=4)) == [
        "--cpus 8: there are 4 for each node, which are used",
        "--mem 32 has no effect: without a scheduler nothing limits memory",
        "--attempts 5 has no effect: without a scheduler nothing is requeued",
    ]
    assert list(unused(config, in_job=True, cpus=8)) == ["--mem 32 has no effect: the job has what it was granted"]
    assert not list(unused(LaunchConfig(), in_job=False, cpus=1))


def test_a_time_limit_holds_without_a_scheduler_too() -> None:
    here = find_allocation({})
    assert job_end(LaunchConfig(time="90m"), here, began=1000.0) == 1000.0 + 5400
    assert job_end(LaunchConfig(), here, began=1000.0) is None


def test_a_chain_whose_later_steps_cannot_work_is_refused(shards: Path, tmp_path: Path) -> None:
    untested = tmp_path / "untested"
    untested.mkdir()
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"].pop("test")
    (untested / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^--chain eval cannot work: no split 'test' in .*untested"):
        chained(call("train", "--data", str(untested)), ("eval",))
    with pytest.raises(UserError, match=r"^--chain cam cannot work: cam needs a model that is trained for gender"):
        chained(call("train", "--data", str(shards), "--tasks", "age"), ("eval", "cam"))
    _, cam = chained(call("train", "--data", str(shards), "--backend", "torchvision"), ("eval", "cam"))
    assert cam.words[-2:] == ("--backend", "torchvision")


def test_a_chain_whose_training_is_finished_resumes_at_the_step_that_was_killed(shards: Path, tmp_path: Path) -> None:
    train = ("train", "--data", str(shards), "--runs", str(tmp_path), "--name", "a", "--epochs", "2")
    evaluation = tmp_path / "a" / "evaluations" / f"{shards.name}-test" / "evaluation.json"
    evaluation.parent.mkdir(parents=True)
    evaluation.write_text("{}")
    metrics = tmp_path / "a" / "metrics.jsonl"
    for epoch in (1, 2):
        metrics.write_text(json.dumps({"epoch": epoch}) + "\n")
        if epoch == 1:
            with pytest.raises(UserError, match="holds results of an earlier checkpoint"):
                chained(call(*train, "--resume"), ("cam", "eval"))
    assert len(chained(call(*train, "--resume"), ("eval", "cam"))) == 2
    with pytest.raises(UserError, match="holds results of an earlier checkpoint"):
        chained(call(*train[:-1], "3", "--resume"), ("eval",))


@pytest.mark.parametrize("name", ["", "..", "../evil", "a b", "-x"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="letters, digits"):
        call("train", f"--name={name}")
    if name:
        with pytest.raises(UserError, match="letters, digits"):
            LaunchConfig(job_name=name)
