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


@contextlib.contextmanager
def held(lock, shared=False):
    """Holds the file `lock`, where there is one, against all others who do; shared, against those who measure."""
    if not lock:
        yield
        return
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def measured(command, lock=None, log=None, environment=None):
    """Runs a command that must succeed, with `lock` held as long as it runs. With `log`, its output goes to that file."""
    with held(lock), open(log, "w") if log else contextlib.nullcontext(subprocess.PIPE) as out:
        before, own, start = busy_ticks(), child_seconds(), time.perf_counter()
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT if log else subprocess.PIPE, text=True, env=environment)
        seconds = time.perf_counter() - start
        busy = (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") - (child_seconds() - own)
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
