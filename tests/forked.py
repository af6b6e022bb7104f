"""Commands that need not import torch again: a process that has imported it forks one for each, and so saves 3 to 8 s.

What runs is `python -m <words>`: the module as `__main__` with its directory, environment, outputs, exit code and
signals, up to the interpreter's own exit. What this does not test: that a command imports each library that it uses,
that libraries say nothing when they are imported, and what they read from the environment then (FIXED: a command that
changes it is a process of its own). Its command line in /proc is that of this file, and sets have the order of all.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    *("torch.distributed", "torch._dynamo", "torch._inductor.config", "torch.utils.tensorboard"),
    *("torchvision.models", "torchvision.transforms.v2"),
    *("nvidia.dali.fn", "nvidia.dali.plugin.pytorch", "matplotlib.figure", "scipy.stats", "safetensors.torch"),
    *("pyarrow.parquet", "cattrs", "jinja2", "rich.progress", "rich.table", "tyro", "webdataset"),
)
OPTIONAL = "nvidia.dali"
"""What may not be installed: `bash tests/run.sh -m gpu` runs without it, too."""
FIXED = ("PYTHON", "LD_", "OMP_", "MKL_", "MPL", "TORCH", "PYTORCH", "DALI", "LANG", "LC_", "TZ", "TMPDIR")
"""How variables' names begin that Python and libraries read when they start."""


def fixed(environment: dict[str, str]) -> dict[str, str]:
    """The variables that cannot be changed once libraries are imported."""
    return {name: value for name, value in environment.items() if name.startswith(FIXED)}


def import_libraries() -> None:
    """Imports LIBRARIES; ModuleNotFoundError for one that is missing and not optional."""
    for library in LIBRARIES:
        with suppress(ModuleNotFoundError) if library.startswith(OPTIONAL) else nullcontext():
            importlib.import_module(library)


class Forks:
    """Runs commands one after the other, in forks of a process that starts with the first one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None

    def run(
        self, words: list[str], cwd: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` captures of `python -m <words>`; TimeoutExpired after `timeout` seconds, as there."""
        if self.process is None:
            command = [sys.executable, "-m", __name__]
            root, pipe = Path(__file__).parent.parent, subprocess.PIPE
            self.process = subprocess.Popen(command, cwd=root, env=self.environment, stdin=pipe, stdout=pipe, text=True)
        with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
            request = (words, str(cwd), environment, stdout.name, stderr.name)
            pid = self.ask(json.dumps(request) + "\n")
            expired = threading.Event()

            def kill() -> None:
                expired.set()
                os.kill(pid, signal.SIGKILL)

            timer = threading.Timer(timeout, kill)
            timer.start()
            try:
                code = self.ask("")
            except BaseException:  # pytest's time limit: its answer must not be taken for that of the next command
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.process.kill()
                self.process.communicate()
                self.process = None
                raise
            finally:
                timer.cancel()
            out, err = Path(stdout.name).read_text(), Path(stderr.name).read_text()
            if expired.is_set():
                raise subprocess.TimeoutExpired(words, timeout, out, err)
            return subprocess.CompletedProcess(words, code, out, err)

    def ask(self, request: str) -> int:
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(request)
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process, if it was started."""
        if self.process:
            self.process.communicate()


def become(words: Sequence[str], cwd: str, *outputs: str) -> None:
    """Gives this fork the directory, the standard output and error, and the arguments of `python -m <words>`."""
    os.chdir(cwd)
    for number, path in enumerate((os.devnull, *outputs)):
        file = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.path[0] = cwd
    sys.argv = list(words)


def serve() -> list[str]:
    """Forks a process for each request on standard input; returns in each of them the words of its command."""
    for line in sys.stdin:
        words: list[str]
        words, cwd, environment, *outputs = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        os.environ.clear()
        os.environ.update(environment)
        become(words, cwd, *outputs)
        return words
    sys.exit()


def end(words: list[str]) -> NoReturn:
    """Runs a command, and ends this fork with its code: as the interpreter does, but that it frees nothing."""
    code: object = 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        code = exit.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    with warnings.catch_warnings(record=True) as told:
        import_libraries()
    assert not told, told
    gc.collect()
    gc.freeze()  # what is never freed is not copied when a fork ends
    end(serve())
