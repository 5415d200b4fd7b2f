"""Running what is measured: alone where a lock is kept, and with a record of what else the machine did meanwhile."""
import contextlib
import fcntl
import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass


class Failed(Exception):
    """A system that could not be measured, and why."""


@dataclass
class Outcome:
    """What a command left: its standard output, its wall seconds, and the share of the CPU that others took beside it."""

    text: str
    seconds: float
    others: float

    def json(self):
        return json.loads(self.text)


# Seconds after which a lock is given up between two commands, so that others get their turn.
LONG = 400


class Lock:
    """A file that is held against all others who hold it: while something is measured, and from one measurement to the next."""

    def __init__(self, path=None):
        self.path, self.file, self.since = path, None, 0.0

    def take(self):
        if self.path and not self.file:
            self.file = open(self.path, "a")
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()

    def give(self, after=0.0):
        """Gives it up, if it has been held for more than `after` seconds."""
        if self.file and time.monotonic() - self.since >= after:
            self.file.close()
            self.file = None

    @contextlib.contextmanager
    def shared(self):
        """Keeps measurements off while something is compiled or installed."""
        self.give()
        if not self.path:
            yield
            return
        with open(self.path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield


def measured(command, lock, log=None, environment=None):
    """Runs a command that must succeed, with `lock` held. With `log`, its output goes to that file."""
    lock.take()
    with open(log, "w") if log else contextlib.nullcontext(subprocess.PIPE) as out:
        before, own, start = busy_ticks(), child_seconds(), time.perf_counter()
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT if log else subprocess.PIPE, text=True, env=environment)
        seconds = time.perf_counter() - start
        busy = (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") - (child_seconds() - own)
    lock.give(after=LONG)
    if done.returncode != 0:
        said = open(log, errors="replace").read() if log else done.stderr
        raise Failed(f"{' '.join(command)}\nended with {done.returncode}: {said.strip()[-800:]}")
    return Outcome(done.stdout or "", seconds, max(0.0, round(busy / seconds / os.cpu_count(), 3)))


def busy_ticks():
    """Time that programs and the kernel worked so far, on all cores together."""
    with open("/proc/stat") as f:
        user, nice, system = (int(v) for v in f.readline().split()[1:4])
    return user + nice + system


def child_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
