"""GPUs through the scheduler's mask, and ports that nobody takes by chance."""

import socket

import pytest

from jobs.machine import PORT_TRIES, candidate_ports, parse_gpu_mask, port_is_free, visible_gpus


@pytest.mark.parametrize(
    ("mask", "gpus"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2,-1,3", ("2",)),
        ("GPU-8f2c,MIG-1a2b", ("GPU-8f2c", "MIG-1a2b")),
    ],
)
def test_mask_is_read_as_cuda_reads_it(mask: str, gpus: tuple[str, ...]) -> None:
    assert parse_gpu_mask(mask) == gpus
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": mask}) == gpus


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
