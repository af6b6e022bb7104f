"""`hpcgender launch`: what it refuses at once, and what it plans from a job's environment."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig, minutes
from hpcgender.launch import start
from hpcgender.launch.agents import Layout, attempt_line, free_ports, make_layout, run_layout
from hpcgender.launch.attempt import as_asked, job_end
from hpcgender.launch.start import chained, unused
from hpcgender.launch.submit import request
from jobs import machine
from jobs.schedulers import find_allocation
from jobs.site import Site
from jobs.stopping import StopRequests
from shard_tools.base import commands
from shard_tools.base.commands import Call, find_call, plain_name
from shard_tools.base.errors import UserError

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "hpcgender.launch", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=30)
    return done.returncode, done.stdout, done.stderr


def call(*words: str) -> Call[Any]:
    return find_call(PROGRAMS, words)


def plan(config: LaunchConfig, environ: dict[str, str], site: Site | None = None) -> Layout:
    here = site or Site(name="test", scheduler="local")
    return make_layout(config, call(*config.command), here, find_allocation(environ), environ)


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


def test_a_command_says_where_its_results_and_logs_are() -> None:
    assert call("train", "--name", "second").results == Path("runs/second")
    assert plan(LaunchConfig(command=("train", "--name", "second")), {}).rank_log == "runs/second/logs/rank-{rank}.log"
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


def test_slurm_job_uses_what_was_granted() -> None:
    planned = plan(LaunchConfig(), {**SLURM, "CUDA_VISIBLE_DEVICES": "4,5,6,7"})
    assert [host.name for host in planned.allocation.hosts] == ["node1", "node2"]
    assert planned.procs_per_node == 4
    assert planned.environ == ({"OMP_NUM_THREADS": "4", "HPCGENDER_DEVICE": "cuda"},) * 2
    assert planned.ranks == ("-m", "hpcgender", "train")
    assert attempt_line(planned, "node1", 12345) == (
        "launch: train on 2 nodes (node1, node2), 4 processes each, 4 threads each, rendezvous node1:12345"
    )


def test_what_no_processes_share_runs_once() -> None:
    planned = plan(LaunchConfig(command=("verify", "data/x")), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [host.name for host in planned.allocation.hosts] == ["node1"]
    assert planned.procs_per_node == 1
    assert planned.ranks == ("-m", "shard_tools", "verify", "data/x")


def test_fewer_nodes_than_granted_are_the_first() -> None:
    planned = plan(LaunchConfig(nodes=1), {**SLURM, "CUDA_VISIBLE_DEVICES": ""})
    assert [host.name for host in planned.allocation.hosts] == ["node1"]
    assert planned.procs_per_node == 1


def test_more_nodes_than_granted_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--nodes 3, but job 7 was granted 2 hosts \(node1, node2\): .*$"):
        plan(LaunchConfig(nodes=3), SLURM)


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(UserError, match="SLURM_JOB_NODELIST"):
        plan(LaunchConfig(), {"SLURM_JOB_ID": "7"})


def test_local_nodes_share_cores_and_gpus() -> None:
    planned = plan(LaunchConfig(nodes=2), {"CUDA_VISIBLE_DEVICES": "1,GPU-2f,3,5"})
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2 // 2))
    assert planned.procs_per_node == 2
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in planned.environ] == ["1,GPU-2f", "3,5"]
    assert [extra["OMP_NUM_THREADS"] for extra in planned.environ] == [threads, threads]
    fewer = plan(LaunchConfig(nodes=2, gpus_per_node=1), {"CUDA_VISIBLE_DEVICES": "1,GPU-2f,3,5"})
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in fewer.environ] == ["1", "GPU-2f"]


def test_what_the_user_set_is_left_alone() -> None:
    environ = {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "2,3"}
    assert plan(LaunchConfig(), environ).environ == ({"HPCGENDER_DEVICE": "cuda"},)
    environ["HPCGENDER_DEVICE"] = "cpu"
    assert plan(LaunchConfig(), environ).environ == ({},)
    assert plan(LaunchConfig(nodes=2, procs_per_node=4), environ).environ == ({}, {})


def test_a_site_has_a_container_and_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    container = "apptainer exec --nv --pwd={directory} 'my image.sif'"
    site = Site(name="x", scheduler="slurm", container=container, scratch="/scratch/$USER")
    planned = plan(LaunchConfig(), SLURM, site)
    assert planned.python == ("apptainer", "exec", "--nv", f"--pwd={Path.cwd()}", "my image.sif", "python3")
    assert planned.environ[1]["TMPDIR"] == "/scratch/ada"


def test_ranks_run_in_the_container(capfd: pytest.CaptureFixture[str]) -> None:
    container = ("unshare", "--user", "--map-current-user")  # a namespace of their own, as apptainer gives them
    if subprocess.run([*container, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    site = Site(name="x", scheduler="local", container=shlex.join(container), container_python=sys.executable)
    planned = replace(plan(LaunchConfig(nodes=2), {}, site), ranks=("-m", "tests.jobs.program", "namespace"))
    with StopRequests() as requests:
        assert run_layout(planned, requests).code == 0
    inside = capfd.readouterr().out
    assert inside.startswith("user:[")
    assert inside.strip() != str(Path("/proc/self/ns/user").readlink())


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


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    planned = replace(plan(LaunchConfig(), {}), ranks=("-m", "tests.jobs.program", "exit", "0", "99"))
    with socket.create_server(("", 0)) as taken, StopRequests() as requests:
        port = taken.getsockname()[1]
        others = free_ports(planned.allocation)
        monkeypatch.setattr("hpcgender.launch.agents.free_ports", lambda _: chain([port], others))
        assert run_layout(planned, requests).code == 99
    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == f"launch: port {port} on 127.0.0.1 is taken: trying another"
    assert len(lines) == 4
    assert lines[3] == "program: no such data"


@pytest.mark.parametrize("environ", [{"SLURM_JOB_ID": "5"}, SLURM, {"JOB_ID": "3", "SGE_TASK_ID": "undefined"}])
def test_this_machine_is_used_within_a_job_if_that_is_asked_for(environ: dict[str, str], tmp_path: Path) -> None:
    for option in ("--scheduler", "--site"):
        command = [sys.executable, "-m", "hpcgender.launch", option, "local", "--dry-run", "--", "models"]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60, env=os.environ | environ
        )
        assert done.stdout.startswith(f"1 nodes ({socket.gethostname()}) with 1 processes each: ")
    assert find_allocation(environ, "local").scheduler.name == "local"


def test_another_schedulers_job_does_not_count() -> None:
    assert find_allocation(SLURM, "slurm").scheduler.name == "slurm"
    assert find_allocation(SLURM, "sge").scheduler.name == "local"


@pytest.mark.parametrize(
    ("options", "gpus", "environ", "says"),
    [
        ({"gpus_per_node": 1}, "", {}, f"--gpus-per-node 1, but {socket.gethostname()} has 0"),
        ({"gpus_per_node": 2, "nodes": 2}, "0,1", {}, "--gpus-per-node 2 for 2 nodes, but"),
        ({"gpus_per_node": 4}, "0,1", SLURM, "--gpus-per-node 4, but job 7 was granted 2 on node1"),
        ({"gpus_per_node": 1, "command": ("verify", "x")}, "", {}, "--gpus-per-node 1, but"),
    ],
)
def test_gpus_that_are_not_there_are_refused(
    options: dict[str, Any], gpus: str, environ: dict[str, str], says: str
) -> None:
    with pytest.raises(UserError) as error:
        plan(LaunchConfig(**options), {**environ, "CUDA_VISIBLE_DEVICES": gpus})
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        (
            {"nodes": 2},
            {},
            f"2 processes, but {socket.gethostname()} has 1 GPU, and each needs its own: give fewer --nodes",
        ),
        ({"procs_per_node": 2}, SLURM, "2 processes, but node1 has 1 GPU, and each needs its own"),
    ],
)
def test_more_processes_than_gpus_are_refused(options: dict[str, Any], environ: dict[str, str], says: str) -> None:
    environ = {**environ, "CUDA_VISIBLE_DEVICES": "GPU-2f"}
    with pytest.raises(UserError) as error:
        plan(LaunchConfig(**options), environ)
    assert str(error.value).startswith(says)
    for cpu in (plan(LaunchConfig(gpus_per_node=0, **options), environ), plan(LaunchConfig(**options), SLURM)):
        assert not any("HPCGENDER_DEVICE" in extra for extra in cpu.environ)


def test_all_hosts_are_told_to_expect_gpus_where_the_first_has_them() -> None:
    planned = plan(LaunchConfig(), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [extra["HPCGENDER_DEVICE"] for extra in planned.environ] == ["cuda", "cuda"]


def test_a_mask_that_lists_gpus_is_not_taken_for_them(tmp_path: Path) -> None:
    assert not machine.has_gpus(tmp_path) or shutil.which("nvidia-smi")
    (tmp_path / "nvidia0").write_text("")
    assert machine.has_gpus(tmp_path)


def test_a_command_that_is_one_process_takes_no_more() -> None:
    several = LaunchConfig(command=("verify", "x"), nodes=2), LaunchConfig(command=("verify", "x"), procs_per_node=2)
    for config in several:
        with pytest.raises(UserError, match="verify is one process on one node"):
            plan(config, {})
        with pytest.raises(UserError, match="verify is one process on one node"):
            request(config, call("verify", "x"), Site(name="x", scheduler="slurm"))


def test_no_gpus_are_shown_to_a_command_that_asks_for_none() -> None:
    for environ, nodes in (({}, None), ({}, 2), (SLURM, None)):
        planned = plan(LaunchConfig(gpus_per_node=0, nodes=nodes), {**environ, "CUDA_VISIBLE_DEVICES": "0,1"})
        assert {extra["CUDA_VISIBLE_DEVICES"] for extra in planned.environ} == {""}
        assert planned.procs_per_node == 1


def test_cores_are_limited_as_asked_for() -> None:
    planned = plan(LaunchConfig(cpus=8), {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert [host.cpus for host in planned.allocation.hosts] == [8, 8]
    assert planned.threads == "4"
    assert [host.cpus for host in plan(LaunchConfig(cpus=64), SLURM).allocation.hosts] == [16, 16]


def test_of_more_hosts_than_were_asked_for_the_rest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    granted = plan(LaunchConfig(), SLURM).allocation
    assert as_asked(granted, 1).hosts == granted.hosts[:1]
    names = [host.name for host in granted.hosts]
    assert f"1 nodes were asked for, 2 granted: without {names[1]}\n" in capsys.readouterr().err
    assert as_asked(granted, 2) == as_asked(granted, 3) == granted
    assert capsys.readouterr().err == ""


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
