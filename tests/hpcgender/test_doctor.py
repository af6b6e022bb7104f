"""`hpcgender doctor`: the failure of each check is produced; where that needs a GPU or a second host, by fakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from hpcgender.commands.doctor import DoctorConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.distributed import Ranks
from hpcgender.doctor import devices, examination, machine, network, report, scheduler, speed, storage
from hpcgender.doctor.finding import Finding, examined, green, yellow
from hpcgender.doctor.report import Examination
from hpcgender.stop import StopSignal
from jobs.machine import candidate_ports, ephemeral_range
from jobs.schedulers import LOCAL, find_allocation
from tests.conftest import REPOSITORY

CPU = torch.device("cpu")
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}
SPEEDS = speed.Speeds(
    read_images_per_s=1000.0,
    read_bytes_per_s=1e7,
    decoded_images_per_s=900.0,
    loaded_images_per_s=800.0,
    step_images_per_s=100.0,
    step_s=0.16,
    gradient_bytes=10**8,
    peak_memory_bytes=0,
)


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.packages("dali").state == "green"
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delattr("nvidia.dali")
    assert machine.packages("dali").state == "yellow"
    assert machine.packages("torchvision").state == "green"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert machine.packages("dali").state == "red"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (
            "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "ImportError: libcudart.so.13: cannot",
        ),
        ("raise RuntimeError('built for another Python')", "RuntimeError: built for another Python"),
        ("", "AttributeError: module 'torch' has no attribute '__version__'"),
    ],
)
def test_a_broken_torch_is_one_red_line(program: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "hpcgender", "doctor"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert done.stdout.startswith("packages: Python 3.")
    assert f"PyTorch cannot be imported: {says}" in done.stdout
    assert done.stdout.endswith("install again: bash jobs/install.sh\n")


@pytest.mark.parametrize(
    ("version", "cuda", "state", "says"),
    [
        ("580.65.06", "13.0", "green", ""),
        ("535.104.05", "13.0", "red", "install a torch for CUDA 12"),
        ("390.77", "13.0", "red", "have the driver updated"),
        ("580.65.06", None, "red", "install a torch for CUDA"),
        ("", "13.0", "green", ""),
    ],
)
def test_a_driver_that_does_not_fit_is_told(
    version: str, cuda: str | None, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake of nvidia-smi, as there may be no GPU."""
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\necho {version}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = machine.driver(cuda)
    assert found.state == state
    assert says in found.advice


def test_too_few_cores_and_too_many_threads_are_told() -> None:
    assert machine.cores(1, {"OMP_NUM_THREADS": "1"}).state == "green"
    assert machine.cores(1, {"OMP_NUM_THREADS": "100000"}).state == "yellow"
    assert machine.cores(100_000, {}).state == "red"


@pytest.mark.parametrize(("limit", "state"), [(300, "red"), (1024, "yellow"), (4096, "green")])
def test_a_low_limit_of_open_files_is_told(limit: int, state: str) -> None:
    program = "from hpcgender.doctor.machine import open_files; print(open_files().state)"
    command = f'ulimit -Hn {limit}; exec "$0" -c "$1"'
    shell = ["bash", "-c", f"ulimit -Sn {limit}; {command}", sys.executable, program]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == state, done.stderr


def test_too_little_shared_memory_is_told(tmp_path: Path) -> None:
    assert machine.shared_memory(tmp_path, enough=1, few=1).state == "green"
    assert machine.shared_memory(tmp_path, enough=1e18).state == "yellow"
    assert machine.shared_memory(tmp_path, enough=1e18, few=1e18).state == "red"
    assert machine.shared_memory(tmp_path / "none").state == "red"


def test_gpus_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = devices.here("dali")
    assert [finding.state for finding in found] == ["red"]
    assert "CUDA_VISIBLE_DEVICES is 0,1, but torch cannot use a GPU" in found[0].found
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    assert devices.gpus(os.environ).state == "yellow"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpus(os.environ).state == "green"


def test_fewer_gpus_than_granted_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes of a GPU."""
    monkeypatch.setattr(devices, "select_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = devices.gpus({"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (found.state, found.found) == ("red", "2 granted (0, 1), 1 seen by torch")


def test_a_device_that_computes_nothing_is_told() -> None:
    assert devices.kernel(CPU).state == "green"
    assert devices.kernel(torch.device("meta")).state == "red"


def test_a_container_without_the_gpus_own_decoders_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.video("libnvcuvid-that-is-not-here.so.1").state == "yellow"
    assert devices.video("libc.so.6").state == "green"
    for backend in ("dali", "dali-mixed"):  # nor is anything said of one without a GPU
        assert [finding.check for finding in devices.here(backend)] == ["GPUs", "kernel on cpu"]
    monkeypatch.setattr(devices, "devices", lambda environ: [torch.device("cuda")])
    for check in ("kernel", "memory"):
        monkeypatch.setattr(devices, check, lambda device, check=check: green(check, ""))
    assert [finding.check for finding in devices.here("dali-mixed")] == ["GPUs", "hardware decoder", "kernel", "memory"]


def test_a_gpu_that_others_use_is_told() -> None:
    assert devices.judge_memory("cuda:0", free=int(79e9), total=int(80e9)).state == "green"
    assert devices.judge_memory("cuda:0", free=int(20e9), total=int(80e9)).state == "yellow"


def test_scratch_space_that_is_missing_small_or_slow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SLOW_SCRATCH", 0.0)
    assert storage.scratch(tmp_path, needed=1, size=1 << 20).state == "green"
    assert storage.scratch(tmp_path, needed=1e18, size=1 << 20).state == "yellow"
    assert storage.scratch(tmp_path / "none").state == "red"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(storage, "SLOW_SCRATCH", 1e15)
    assert storage.scratch(tmp_path, needed=1, size=1 << 20).state == "yellow"


def test_a_place_for_results_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert storage.results(tmp_path / "file" / "runs").state == "red"
    assert storage.judge_results(tmp_path, free=10**9, ahead=0.0).state == "yellow"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 120)
    found = storage.results(tmp_path / "runs")
    assert found.state == "yellow"
    assert "120 s behind" in found.found
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_log_that_other_nodes_see_late_or_never_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    seen = storage.wait_for_text(tmp_path / "log", "two")
    assert storage.judge_log({"node2": seen}).state == "green"
    assert storage.judge_log({"node2": 9.0}).state == "yellow"
    found = storage.judge_log({"node2": seen, "node3": storage.wait_for_text(tmp_path / "log", "three", 0.2)})
    assert (found.state, found.found[:6]) == ("red", "node3:")
    assert storage.wait_for_text(tmp_path / "none", "one", 0.2) is None


def test_clocks_that_differ_are_told() -> None:
    assert storage.judge_clocks({"node1": 0.0, "node2": 0.01}).state == "green"
    assert storage.judge_clocks({"node1": 0.0, "node2": -5.0}).state == "yellow"
    found = storage.judge_clocks({"node1": 0.0, "node2": 90.0})
    assert found.state == "red"
    assert "node2 is ahead" in found.found


def test_an_interface_that_others_cannot_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.interface(False, {}, "localhost").state == "green"
    assert network.interface(True, {}, "localhost").state == "red"
    assert network.interface(True, {}, "no.such.host.invalid").state == "red"
    assert network.interface(True, {"GLOO_SOCKET_IFNAME": "lo"}).found == "lo, as the environment says"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    found = examined("interface", network.interface, True, os.environ)
    assert found.state == "red"
    assert "nowhere0" in found.found


def test_ports_in_use_are_told() -> None:
    ports = list(candidate_ports("12345", ephemeral_range()))
    with ExitStack() as opened:
        for number, port in enumerate(ports, 1):
            server = opened.enter_context(socket.socket(socket.AF_INET6))
            server.bind(("", port))
            server.listen()
            if number == 5:
                assert network.ports("12345").state == "yellow"
        assert network.ports("12345").state == "red"
    assert network.ports("12345").state == "green"


def test_ranks_that_do_not_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (port, *_) = candidate_ports("6789", ephemeral_range())
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(network, "TIMEOUT", timedelta(seconds=1))
    found = examined("rendezvous", network.join, Ranks(1, 2, CPU))
    assert found.state == "red"
    assert "timed out" in found.found


def test_a_slow_all_reduce_is_told() -> None:
    assert network.judge_bandwidth("across nodes", 1e10, gradient_bytes=1e8, step_s=0.1).state == "green"
    found = network.judge_bandwidth("across nodes", 1e8, gradient_bytes=1e8, step_s=0.1)
    assert found.state == "yellow"
    assert "gradients take 1000 ms of a step's 100 ms" in found.found
    assert "InfiniBand" in found.advice


def test_what_starves_is_told() -> None:
    fast, slow = SPEEDS, speed.Speeds(**{**SPEEDS.__dict__, "loaded_images_per_s": 110.0, "read_images_per_s": 110.0})
    assert {speed.judge_reading(fast).state, speed.judge_loading(fast, on_gpu=True).state} == {"green"}
    assert speed.judge_reading(slow).state == "yellow"
    assert "starves" in speed.judge_loading(slow, on_gpu=True).found
    assert speed.judge_loading(slow, on_gpu=False).state == "yellow"
    assert speed.judge_step(fast, 95.0, "node2", "bf16").state == "green"
    assert "60 on node2" in speed.judge_step(fast, 60.0, "node2", "bf16").found


def test_shards_that_cannot_be_read_are_told(shards: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shards, tmp_path / "data")
    next(data.glob("train/*.tar")).unlink()
    config = TrainConfig(data=data, model="resnet18", image_size=32, batch_size=8, backend="torchvision")
    found = examined("step", speed.measure, config, Ranks(0, 1, CPU))
    assert isinstance(found, Finding)
    assert found.state == "red"
    assert "restore or pack it again" in found.found


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('epoch 1/2', flush=True); input()", "was killed by SIGUSR1, not with 99"),
        ("import sys; sys.exit('no space left')", "ended with exit code 1, not with 99: no space left"),
        (
            "import signal, time; signal.signal(10, lambda *_: None); print('epoch 1/2', flush=True)\n"
            "while True: time.sleep(1)",
            "did not end",
        ),
        (
            "import signal, sys, time; signal.signal(10, lambda *_: sys.exit(99)); print('epoch 1/2', flush=True)\n"
            "time.sleep(60)",
            "that got SIGTERM",
        ),
    ],
)
def test_a_training_that_does_not_save_or_resume_is_told(
    program: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "START_SECONDS", 3.0)
    monkeypatch.setattr(scheduler, "STOP_SECONDS", 1.0)
    found = scheduler.interruption(["bash", "-c", 'exec "$0" -c "$1" < /dev/zero', sys.executable, program])
    assert found.state == "red"
    assert says in found.found


def test_a_job_whose_end_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert scheduler.time_limit(find_allocation(SLURM), SLURM, time.time()).state == "yellow"
    assert scheduler.time_limit(LOCAL.allocation({}), {}, time.time()).state == "green"


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text('scheduler = "slurm"\n')
    monkeypatch.setenv("PATH", "/nowhere")
    found = scheduler.accepts(1)
    assert found.state == "red"
    assert "there is no sbatch here" in found.found


AGENT = """
import os, signal, sys
def forward(*_):
    if sys.argv[1] == "forwards":
        os.kill(os.getppid(), signal.SIGTERM)
signal.signal(signal.SIGUSR1, forward)
print(flush=True)
while True:
    signal.pause()
"""
WHOLE = Examination(
    time=0.0,
    hosts=("node1", "node2"),
    processes=1,
    device="cpu",
    precision="fp32",
    cores_per_process=16.0,
    model="resnet18",
    image_size=64,
    batch_size=16,
    findings=(green("cores", "16 cores"),),
)


@pytest.mark.parametrize(("does", "code"), [("forwards", 99), ("ignores", 1)])
def test_a_job_whose_agent_passes_no_signal_on_is_told(
    does: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent is a program that does as one, or does not; the requeue is of an environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "doctor").mkdir(parents=True)
    monkeypatch.setattr(examination, "STOP_SECONDS", 20.0 if code == 99 else 0.3)
    job, ranks = find_allocation(SLURM), Ranks(0, 1, CPU)
    with subprocess.Popen([sys.executable, "-c", AGENT, does], stdout=subprocess.PIPE) as agent, StopSignal() as stop:
        assert agent.stdout
        agent.stdout.readline()
        monkeypatch.setenv("JOBS_AGENT_PID", str(agent.pid))
        assert examination.interrupt(DoctorConfig(), WHOLE, {}, ranks, stop, job) == code
        agent.kill()
    assert examination.read_interrupted(job) is None  # in a job that was not started again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    saved = examination.read_interrupted(job)
    assert bool(saved) == (code == 99)
    capsys.readouterr()
    if saved:
        assert examination.conclude(saved, ranks) == 0
        assert "signalled, saved, requeued and resumed after" in capsys.readouterr().out
        assert examination.read_interrupted(job) is None
    states = {finding.check: finding.state for finding in report.read(Path("runs/doctor/examination.json")).findings}
    assert states == {"cores": "green", "requeue": "green" if code == 99 else "red"}


def test_the_table_has_the_worst_first_and_says_where(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    findings = (
        *(Finding(check="cores", state="green", found="16 cores", host=host) for host in ("node1", "node2")),
        Finding(check="GPUs", state="red", found="none", advice="ask for them", host="node2"),
        yellow("loader", "the GPU starves", "more cores"),
    )
    whole = replace(WHOLE, findings=findings)
    assert whole.code == 1
    path = report.write(whole, tmp_path)
    assert report.read(path) == whole
    report.show(whole, {"your shards": "give --data"})
    _, _, *rows, counts, skipped = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [
        ["GPUs", "red", "on", "node2:", "none", "->", "ask", "for", "them"],
        ["loader", "yellow", "the", "GPU", "starves", "->", "more", "cores"],
        ["cores", "green", "16", "cores"],
    ]
    assert counts == "1 green, 1 yellow, 1 red"
    assert skipped == "not examined: your shards: give --data"


def test_this_machine_is_examined_on_the_spot(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "SECONDS", 0.2)
    monkeypatch.setattr(speed, "STEPS", 1)
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = DoctorConfig(data=shards, model="resnet18", image_size=32, batch_size=8, json=True)
    assert examination.examine(config) == 0
    told = json.loads(capfd.readouterr().out)
    written = report.read(tmp_path / "runs" / "doctor" / "examination.json")
    assert told["hosts"] == list(written.hosts) == [socket.gethostname()]
    states = {finding["check"]: finding["state"] for finding in told["findings"]}
    assert "red" not in states.values(), told
    assert {"packages", "GPUs", "scratch", "ports", "shards", "decode", "step", "loader", "signals"} <= set(states)
    assert states["signals"] == "green", told
    assert (written.number("step", "images_per_s") or 0) > 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
