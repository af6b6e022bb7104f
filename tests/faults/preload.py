"""What is preloaded into a command: reads that hang or are slow, and a clock that jumps."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static int reads;
static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }
static int below(int fd) {
    char link[64], path[4096];
    const char *root = getenv("FAULT_BELOW");
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && !strncmp(path, root, strlen(root));
}
static void hang(int fd) {
    if (!below(fd)) return;
    if (__sync_add_and_fetch(&reads, 1) == number("FAULT_READ")) sleep(5);
    usleep(1000 * number("FAULT_SLOW"));
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
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t begin;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id == CLOCK_REALTIME && number("FAULT_CLOCK")) {
        if (!begin) begin = now->tv_sec;
        if (now->tv_sec - begin >= number("FAULT_AFTER")) now->tv_sec += number("FAULT_CLOCK");
    }
    return failed;
}
"""
"""The FAULT_READ-th read of a file below FAULT_BELOW takes five seconds, each one FAULT_SLOW milliseconds more; after
FAULT_AFTER seconds the clock is FAULT_CLOCK seconds further."""


@cache
def library(directory: Path) -> str:
    """The shim for LD_PRELOAD, compiled into a directory by gcc."""
    source, shim = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True, capture_output=True)
    return str(shim)
