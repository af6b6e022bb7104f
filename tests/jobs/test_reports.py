"""Which failure an agent reports, and how."""

import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from jobs.agent import Report, failure_report, first_failure, last_traceback, plain_code

CRASH = "Traceback (most recent call last):\nValueError: bad pixel"
PEER_LOST = "Traceback (most recent call last):\nRuntimeError: Connection closed by peer [10.0.0.1]:3276"


def failed(code: int) -> ProcessFailure:
    return ProcessFailure(local_rank=1, pid=0, exitcode=code, error_file="")


def report(tmp_path: Path, rank: int, code: int, log: str) -> Report | None:
    (tmp_path / "rank-3.log").write_text(log)
    return failure_report(rank, "node1", failed(code), str(tmp_path / "rank-{rank}.log"))


def test_a_crash_is_told_at_once_with_the_traceback_of_its_log(tmp_path: Path) -> None:
    line = f"agent on node1: rank 3 failed: exit code 1; its log: {tmp_path / 'rank-3.log'}"
    assert report(tmp_path, 3, 1, f"step 1\n{CRASH}\n") == Report(text=f"{CRASH}\n{line}", patience=0.0)


def test_a_lost_peer_waits_for_the_cause(tmp_path: Path) -> None:
    found = report(tmp_path, 3, 1, PEER_LOST)
    assert found is not None
    assert found.patience > 1


def test_bad_input_that_only_a_log_tells_is_repeated(tmp_path: Path) -> None:
    found = report(tmp_path, 3, 2, "step 1\nhpcgender: shard 7 is torn\n")
    assert found is not None
    assert found.text.splitlines()[0] == "hpcgender: shard 7 is torn"


@pytest.mark.parametrize(("rank", "code"), [(0, 2), (0, 99), (3, 99)])
def test_what_rank_0_said_or_nobody_needs_is_not_repeated(tmp_path: Path, rank: int, code: int) -> None:
    assert report(tmp_path, rank, code, "") is None


def test_a_signal_has_its_name(tmp_path: Path) -> None:
    assert report(tmp_path, 0, -11, "") == Report(text="agent on node1: rank 0 failed: killed by SIGSEGV", patience=0.0)


@pytest.mark.parametrize(
    ("exitcodes", "telling"),
    [
        ({0: 99, 1: 1}, 1),  # rank 0 saved its work when the agent ended it
        ({0: 1, 1: 2}, 1),  # rank 0 lost its peer, which had reported what is wrong
        ({0: -signal.SIGTERM, 1: 1}, 1),  # rank 0 was ended by the agent
        ({0: 1, 1: -signal.SIGKILL}, 1),  # rank 0 lost its peer, which was killed
        ({4: 1, 5: 1}, 4),
        ({0: 1, 1: 75, 2: 99}, 1),  # the storage of rank 1 failed, and the others lost their peer
        ({0: 75, 1: 2}, 1),
    ],
)
def test_the_most_telling_failure_counts(exitcodes: dict[int, int], telling: int) -> None:
    failures = {rank: failed(code) for rank, code in exitcodes.items()}
    assert first_failure(failures, stopping=False)[0] == telling


def test_after_a_request_to_stop_99_counts() -> None:
    failures = {rank: failed(code) for rank, code in {0: 1, 1: 99}.items()}
    assert first_failure(failures, stopping=True)[0] == 1


@pytest.mark.parametrize(("exitcode", "code"), [(0, 0), (2, 2), (99, 99), (75, 99), (1, 1), (137, 1), (-9, 1)])
def test_other_codes_are_plain_failures(exitcode: int, code: int) -> None:
    assert plain_code(exitcode) == code


def test_traceback_is_found_at_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "rank-1.log"
    old = "Traceback (most recent call last):\nValueError: an older one\nepoch 1\n"
    new = "[rank1]: Traceback (most recent call last):\n[rank1]: ValueError: this one"
    log.write_text(f"{old}{new}\n")
    assert last_traceback(log) == new
    assert last_traceback(tmp_path / "none.log") == ""
