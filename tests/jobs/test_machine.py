"""GPUs through the scheduler's mask, and ports that nobody takes by chance."""

import socket
from pathlib import Path

import pytest

from jobs.machine import GPU_VARIABLE, PORT_TRIES, candidate_ports, parse_gpu_mask, port_is_free, visible_gpus


@pytest.mark.parametrize(
    ("mask", "gpus"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2,-1,3", ("2",)),
        ("GPU-8f2c,GPU-1a2b", ("GPU-8f2c", "GPU-1a2b")),
        ("MIG-1a2b,MIG-3c4d", ("MIG-1a2b",)),
    ],
)
def test_mask_is_read_as_cuda_reads_it(mask: str, gpus: tuple[str, ...]) -> None:
    assert parse_gpu_mask(mask) == gpus
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": mask}) == gpus


@pytest.mark.parametrize(
    ("devices", "granted", "gpus"),
    [
        ((0, 1, 2, 10), "2 10", ("2", "3")),
        ((0, 1, 2, 3), "gpu1", ("1",)),
        ((2,), "2", ("0",)),  # the others' devices cannot be opened: CUDA does not count them
        ((0, 1), "GPU1 GPU2", ("0", "1")),  # the site's own names: no mask can be made of them
        ((0, 1), "left right", ("0", "1")),
        ((0, 1), "", ("0", "1")),
        ((0, 1), None, ("0", "1")),
    ],
)
def test_granted_gpus_are_those_that_grid_engine_names(
    devices: tuple[int, ...], granted: str | None, gpus: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in devices)):
        (tmp_path / name).touch()
    environ = {GPU_VARIABLE: "SGE_HGR_gpu_card", "SGE_HGR_other": "7"}
    environ |= {} if granted is None else {"SGE_HGR_gpu_card": granted}
    assert visible_gpus(environ, tmp_path) == gpus
    assert visible_gpus({**environ, "CUDA_VISIBLE_DEVICES": "5"}, tmp_path) == ("5",)


@pytest.mark.parametrize("ephemeral", ["32768\t60999\n", "10000 65000", "1024 65535"])
def test_ports_follow_from_the_job_and_keep_to_their_range(ephemeral: str) -> None:
    ports = list(candidate_ports("337624", ephemeral))
    assert ports == list(candidate_ports("337624", ephemeral))
    assert len(set(ports)) == PORT_TRIES
    low = int(ephemeral.split()[0])
    assert all(1024 <= port < (low if low > 1024 else 32_768) for port in ports)


def test_neighbouring_jobs_begin_at_different_ports() -> None:
    assert len({next(candidate_ports(str(job), "32768 60999")) for job in range(100)}) > 95


def test_taken_port_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)
