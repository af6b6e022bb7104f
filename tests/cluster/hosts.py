"""Hosts of a test cluster: sets of Linux namespaces, each with its own network, name, processes, /tmp and /dev/shm.

A host lives as long as its first process, and that as long as a pipe to whoever started it: ending it ends every
process on the host and drops its network at once, as a power cut does. The switch between the hosts is a bridge inside
the first one's network, so nothing is added to the network of the machine, and no host has a way out. The ordinary user
exists on the hosts only.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
USER = "student"
"""The ordinary user; the other one is root."""
OWN = (Path("/tmp"), Path("/var/tmp"))
"""Directories that each host has for itself, as where systemd or a job's prolog makes them private."""

_BOOT = """
set -e; umask 022
hostname "$1"
for file in hosts passwd group; do mount --bind "$2/etc/$file" "/etc/$file"; done
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
"""
_STAY = """
echo up
exec >/dev/null
set +e
read -r _  # bash reaps orphans meanwhile
"""


class Hosts:
    """The hosts by name, the first one with the bridge. Everything that they write is below `directory`."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.directory = directory
        self.names = tuple(names)
        self._running: dict[str, tuple[subprocess.Popen[str], int]] = {}
        taken = {user.pw_uid for user in pwd.getpwall()}
        self.uid = next(uid for uid in range(5000, 60000) if uid not in taken)
        self.home = directory / "home"
        for name in ("etc", "home"):
            (directory / name).mkdir(parents=True)
        directory.chmod(0o755)
        os.chown(self.home, self.uid, self.uid)
        etc = directory / "etc"
        lines = [f"{self.address(name)} {name} {name}.cluster.test\n" for name in self.names]
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
        user = f"{USER}:x:{self.uid}:{self.uid}::{self.home}:/bin/bash\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text().rstrip("\n") + "\n" + user)
        group = f"{USER}:x:{self.uid}:\n"
        (etc / "group").write_text(Path("/etc/group").read_text().rstrip("\n") + "\n" + group)

    def address(self, name: str) -> str:
        """The host's IPv4 address."""
        return f"10.99.0.{10 + self.names.index(name)}"

    def start(self, name: str) -> None:
        """Starts a host and plugs it into the network. RuntimeError if it does not come up."""
        reached = [self.directory, REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]
        script = "\n".join([_BOOT, *_open_to_all(reached), _STAY])
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
        command = ["unshare", *spaces, "--propagation", "private", "/bin/bash", "-c", script, "host"]
        holder = subprocess.Popen(
            [*command, name, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,  # a terminal's Ctrl-C is for the tests
        )
        assert holder.stdout
        assert holder.stderr
        if holder.stdout.readline() != "up\n":
            raise RuntimeError(f"test host {name} does not start: {holder.stderr.read()}")
        first = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        self._running[name] = holder, first
        self._plug_in(name, first)

    def _plug_in(self, name: str, first: int) -> None:
        switch = self.names[0]
        if name == switch:
            # With an address of its own: else it has the least of its ports', and others lose it with a port.
            bridge = "link add br0 address 02:00:00:00:00:01 type bridge"
            self._ip(name, bridge, f"addr add {self.address(name)}/24 dev br0", "link set br0 up")
            return
        # An interface moves by a pid that its own host could not see, so this machine's is said.
        self._ip(switch, f"link add {name} type veth peer name to-{name}", f"link set to-{name} netns {first}")
        self._ip(switch, f"link set {name} master br0", f"link set {name} up")
        address = f"addr add {self.address(name)}/24 dev eth0"
        self._ip(name, f"link set to-{name} name eth0", address, "link set eth0 up")

    def _ip(self, host: str, *commands: str) -> None:
        network = ["nsenter", "--target", str(self._running[host][1]), "--net", "ip"]
        for command in commands:
            subprocess.run([*network, *command.split()], check=True, timeout=20)

    def stop(self, name: str) -> None:
        """Ends all processes of a host at once; nothing if it does not run. The others hear nothing more from it."""
        holder, first = self._running.pop(name, (None, 0))
        if holder:
            if name != self.names[0]:  # first, or the kernel would say goodbye on each connection
                self._ip(self.names[0], f"link del {name}")
            os.kill(first, signal.SIGKILL)
            holder.communicate()

    def command(self, name: str, argv: Sequence[str], *, user: str, cwd: Path, environ: Mapping[str, str]) -> list[str]:
        """The command line that runs `argv` on a host. Killing it kills what it runs. KeyError if the host is down."""
        who = [] if user == "root" else [f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups"]
        variables = [f"{key}={value}" for key, value in environ.items()]
        inside = ["setpriv", *who, "--pdeathsig=KILL", "env", "-i", f"--chdir={cwd}", *variables, *argv]
        return [*self.enter(name), *inside]

    def enter(self, name: str) -> list[str]:
        """The command line, without its command, that runs a command on a host as root. KeyError if it is down."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return ["nsenter", "--target", str(self._running[name][1]), *spaces, "--"]

    def processes(self, name: str) -> dict[int, str]:
        """The command lines of a host's processes, but for its first, by their pid on this machine."""
        if name not in self._running:
            return {}
        first = self._running[name][1]
        space = Path(f"/proc/{first}/ns/pid").readlink()
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                arguments = (directory / "cmdline").read_text(errors="replace").split("\0")
                if (directory / "ns" / "pid").readlink() == space and any(arguments):  # a zombie has none
                    found[int(directory.name)] = " ".join(arguments).strip()
        found.pop(first, None)
        return found


def _open_to_all(paths: Sequence[Path]) -> list[str]:
    """Shell lines after which everybody reaches `paths`: directories closed to others give way to ones with only them.

    A Python in /root would be out of the ordinary user's reach. What is there for each host alone gives way, too.
    """
    hidden: dict[Path, set[Path]] = {path: set() for path in OWN}
    for path in {path.resolve() for path in paths}:
        for parent in [*reversed(path.parents), path]:
            if parent in OWN or not parent.stat().st_mode & 0o001:
                hidden.setdefault(parent, set()).add(path)
                break
    inside = sorted(path for group in hidden.values() for path in group)
    quoted = [(shlex.quote(str(path)), f"/dev/shm/stash/{number}") for number, path in enumerate(inside)]
    return [
        *(f"mkdir -p {there}; mount --rbind {path} {there}" for path, there in quoted),
        *(
            f"mount -t tmpfs -o mode={'1777' if parent in OWN else '755'} tmpfs {shlex.quote(str(parent))}"
            for parent in sorted(hidden)
        ),
        *(f"mkdir -p {path}; mount --move {there} {path}" for path, there in quoted),
        "rmdir /dev/shm/stash/* /dev/shm/stash",
    ]
