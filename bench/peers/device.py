"""What the disk gives: random reads of 4 KiB by fio, of a file as large as the index, on the same file system.

io_uring and O_DIRECT as in the searches, with registered file and buffers; every depth and number of threads, the best counts.
"""
import os
import shutil
import subprocess
from pathlib import Path

from commands import Failed, measured
from facts import bytes_of

FIO = {"depths": [1, 4, 16, 32, 64, 128], "threads": [1, 2], "seconds": 4}
QUICK = {"depths": [1, 32], "threads": [1], "seconds": 1}
CHUNK = 1 << 20


def settings_of(a):
    """Depths, threads, seconds of each, and the size of the file: our index's, or DiskANN's where ours is not there."""
    size = bytes_of(a.index("roxanne")) or bytes_of(a.index("diskann") / "ann_disk.index")
    if not size:
        raise Failed("fio reads a file as large as an index, and there is none; run roxanne or diskann first")
    return {**(QUICK if a.quick else FIO), "block_bytes": 4096, "file_bytes": size // CHUNK * CHUNK}


def run(a, settings):
    fio = installed()
    path = Path(a.work, "fio.bin")
    fill(path, settings["file_bytes"])
    points = []
    for threads in settings["threads"]:
        for depth in settings["depths"]:
            command = [fio, "--name=reads", f"--filename={path}", "--rw=randread", f"--bs={settings['block_bytes']}", "--readonly"]
            command += ["--ioengine=io_uring", "--direct=1", "--registerfiles", "--fixedbufs", f"--iodepth={depth}", "--thread"]
            command += [f"--numjobs={threads}", "--group_reporting", "--norandommap", "--randrepeat=0", "--time_based", "--ramp_time=1"]
            outcome = measured([*command, f"--runtime={settings['seconds']}", "--output-format=json"], a.lock)
            read = outcome.json()["jobs"][0]["read"]
            us = {"mean_us": read["clat_ns"]["mean"] / 1e3, "p99_us": read["clat_ns"]["percentile"]["99.000000"] / 1e3}
            points.append({"threads": threads, "depth": depth, "reads_per_second": read["iops"], **us, "others": outcome.others})
    version = subprocess.run([fio, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return {"command": " ".join(command), "versions": {"fio": version}, "points": points, "others": max(p["others"] for p in points)}


def installed():
    """fio, installed where it is missing and a Debian package can be."""
    if not shutil.which("fio") and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "--quiet=2"], stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", "fio"], stdout=subprocess.DEVNULL)
    return shutil.which("fio") or failed()


def failed():
    raise Failed("no fio; install it (Debian: apt-get install fio)")


def fill(path, size):
    """A file of random bytes, all on disk: a sparse one would be answered by nobody."""
    if path.exists() and path.stat().st_size == size:
        return
    with open(path, "wb") as f:
        for _ in range(size // CHUNK):
            f.write(os.urandom(CHUNK))
        f.flush()
        os.fsync(f.fileno())
