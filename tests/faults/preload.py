"""What is preloaded into a command: reads that hang or are slow, a quota, a clock that jumps; and what counts."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
static struct { long hits, reads, written, asked; } *shared;
static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }
static int counts(void) {
    if (!shared) {
        int file = open(getenv("FAULT_COUNTS"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0 || ftruncate(file, 4096)) return 0;
        void *at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (at == MAP_FAILED) return 0;
        shared = at;
    }
    return 1;
}
static int below(int fd, const char *name) {
    char link[64], path[4096];
    const char *root = getenv(name);
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, root, strlen(root)) && path[strlen(root)] == '/';
}
static void hang(int fd) {
    if (!below(fd, "FAULT_READS") || !counts()) return;
    long slow = number("FAULT_SLOW"), now = __sync_add_and_fetch(&shared->reads, 1) == number("FAULT_READ");
    if (now || slow) __sync_add_and_fetch(&shared->hits, 1);
    if (now) sleep(5);
    usleep(1000 * slow);
}
#define READ(name, parameters, arguments)                                  \
    ssize_t name parameters {                                              \
        static ssize_t(*real) parameters;                                  \
        if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name);  \
        hang(fd);                                                          \
        return real arguments;                                             \
    }
READ(read, (int fd, void *to, size_t size), (fd, to, size))
READ(pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
READ(pread64, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
static int refused(int fd, size_t size) {
    long room = number("FAULT_ROOM");
    if (!below(fd, "FAULT_WRITES") || !counts()) return 0;
    if (__sync_add_and_fetch(&shared->written, size) <= room || !room) return 0;
    __sync_add_and_fetch(&shared->hits, 1);
    errno = EDQUOT;
    return 1;
}
#define WRITE(type, failed, name, parameters, arguments, fd, size)         \
    type name parameters {                                                 \
        static type(*real) parameters;                                     \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);     \
        return refused(fd, size) ? failed : real arguments;                \
    }
static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int place = 0; place < count; place++) sum += parts[place].iov_len;
    return sum;
}
WRITE(ssize_t, -1, write, (int fd, const void *from, size_t size), (fd, from, size), fd, size)
WRITE(ssize_t, -1, pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at), fd, size)
WRITE(ssize_t, -1, pwrite64, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at), fd, size)
WRITE(ssize_t, -1, writev, (int fd, const struct iovec *from, int count), (fd, from, count), fd, total(from, count))
WRITE(size_t, 0, fwrite, (const void *from, size_t size, size_t count, FILE *to), (from, size, count, to), fileno(to),
      size * count)
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id != CLOCK_REALTIME || !counts()) return failed;
    long further = number("FAULT_CLOCK"), asked = __sync_add_and_fetch(&shared->asked, 1);
    if (further && asked >= number("FAULT_ASKED")) {
        now->tv_sec += further;
        __sync_add_and_fetch(&shared->hits, 1);
    }
    return failed;
}
"""
"""The FAULT_READ-th read of a file below FAULT_READS takes five seconds, each one FAULT_SLOW milliseconds more. After
FAULT_ROOM bytes no more can be written to files below FAULT_WRITES: EDQUOT. From the FAULT_ASKED-th time on that it is
asked, the clock is FAULT_CLOCK seconds further. All processes of a command count together, in the file FAULT_COUNTS."""


@dataclass(frozen=True)
class Counts:
    """What a command did, and how often a fault met it."""

    hits: int
    reads: int
    written: int
    """Bytes, also those of files that are gone."""
    asked: int
    """How often it asked for the time."""


def counted(path: Path) -> Counts:
    """From the file in which the shim counts, if it has made it."""
    return Counts(*struct.unpack_from("4q", path.read_bytes())) if path.exists() else Counts(0, 0, 0, 0)


@dataclass(frozen=True)
class Shim:
    """A library for LD_PRELOAD, compiled into a directory by gcc when it is first needed."""

    root: Path
    """Below which files are read that it disturbs."""

    def environment(self, cwd: Path, counts: Path, **settings: object) -> dict[str, str]:
        """The variables of a command in a directory that counts in a file, and is disturbed as the settings say."""
        source, library = self.root / "shim.c", self.root / "shim.so"
        if not library.exists():
            source.write_text(SOURCE)
            subprocess.run(
                ["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True
            )
        fixed = {"LD_PRELOAD": library, "FAULT_READS": self.root, "FAULT_WRITES": cwd, "FAULT_COUNTS": counts}
        return {name: str(value) for name, value in {**fixed, **settings}.items()}
