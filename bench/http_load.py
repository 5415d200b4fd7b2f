"""What a search costs over HTTP, beside writes, beside idle and slow connections, and after a restart.

    python bench/http_load.py ROXANNE BASE.u8bin QUERY.u8bin WORK [--limit ROWS] [--seconds S] [--json OUT]     needs wrk and numpy; WORK is made, or is of an earlier run

A collection is made of BASE (u8, Euclid, keys as texts, all in a base) and served with `--ram 2G`; `wrk` asks, always the same first 1,000
queries, limit 10, list 100. Server and load share the machine.

Cost: the server's CPU (utime + stime of its process, as getrusage says it) over the requests that wrk counts, with one connection and with eight;
the engine's part is what /metrics adds to roxanne_search_cpu_seconds_total meanwhile: CPU of the threads that searched, while they did. With --truth
the rate of the same base in `roxanne eval`, two threads, list 100, stands beside.
Mixed: four connections, a thread of wrk each; alone they search, beside upserts every tenth request of each puts a point with a new id. Latencies of
both kinds are taken apart.
Strangers: 2,000 connections that had an answer and wait, made again when the server closes them, and 200 that send a byte of a head a
second.
"""

import sys

# This file is no package of that name, which Python would look for beside it.
sys.path.pop(0)

import argparse
import http.client
import json
import os
import platform
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

QUERIES = 1000
# wrk -s load.lua URL -- PATH KIND FILE SIZE: posts the lines of FILE, or its pieces of SIZE bytes; its last line are the figures.
LOAD = """
local requests, i = {}, 0
function init(args)
  local path, kind, file, size = args[1], args[2], io.open(args[3], "rb"), tonumber(args[4])
  local read = function() if size > 0 then return file:read(size) end return file:read("*l") end
  for body in read do requests[#requests + 1] = wrk.format("POST", path, {["Content-Type"] = kind}, body) end
end
function request() i = i % #requests + 1; return requests[i] end
function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.timeout + e.status
  io.write(string.format('\\n{"requests": %d, "seconds": %.3f, "failed": %d, ', summary.requests, summary.duration / 1e6, failed))
  io.write(string.format('"p50_us": %d, "p99_us": %d, "most_us": %d}\\n', latency:percentile(50), latency:percentile(99), latency.max))
end
"""
# wrk -t N -c N -s mixed.lua URL -- PATH KIND FILE 0 POINTS EVERY: the same, but every request of number EVERY of a connection puts a point. A thread has
# one connection, so that it knows which answer is whose; latencies lie in buckets of 10 us.
MIXED = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } when; int clock_gettime(int, when *);")
local clock = ffi.new("when")
local function now() ffi.C.clock_gettime(1, clock) return tonumber(clock.s) * 1e6 + tonumber(clock.ns) / 1e3 end
local searches, points, every, path, i, begun, puts, boot = {}, {}, 0, "", 0, 0, false, 0
local threads = {}
counts, put_counts, bad = {}, {}, 0
function setup(thread) thread:set("number", #threads) table.insert(threads, thread) end
function init(args)
  path, every = args[1], tonumber(args[6])
  for line in io.open(args[3], "r"):lines() do searches[#searches + 1] = wrk.format("POST", path, {["Content-Type"] = args[2]}, line) end
  for line in io.open(args[5], "r"):lines() do points[#points + 1] = line end
  boot = string.format("%d-%d", now(), number)
end
function request()
  i = i + 1
  puts, begun = every > 0 and i % every == 0, now()
  if not puts then return searches[i % #searches + 1] end
  local body = string.format('{"points": [{"id": "%s-%d", "vector": %s}]}', boot, i, points[i % #points + 1])
  return wrk.format("PUT", "/collections/c/points", {["Content-Type"] = "application/json"}, body)
end
function response(status)
  local bucket, of = math.floor((now() - begun) / 10), puts and put_counts or counts
  of[bucket] = (of[bucket] or 0) + 1
  if status ~= 200 then bad = bad + 1 end
end
local function all(name)
  local sum, n, most = {}, 0, 0
  for _, thread in ipairs(threads) do
    for bucket, count in pairs(thread:get(name)) do
      sum[bucket] = (sum[bucket] or 0) + count
      n, most = n + count, math.max(most, bucket)
    end
  end
  local function at(part)
    local seen = 0
    for bucket = 0, most do
      seen = seen + (sum[bucket] or 0)
      if seen >= part * n then return bucket * 10 end
    end
    return 0
  end
  return n, at(0.5), at(0.99), most * 10
end
function done(summary)
  local e, n, p50, p99, most = summary.errors, all("counts")
  local puts, put50, put99 = all("put_counts")
  local failed = e.connect + e.read + e.write + e.timeout
  for _, thread in ipairs(threads) do failed = failed + thread:get("bad") end
  io.write(string.format('\\n{"requests": %d, "seconds": %.3f, "failed": %d, ', n, summary.duration / 1e6, failed))
  io.write(string.format('"p50_us": %d, "p99_us": %d, "most_us": %d, ', p50, p99, most))
  io.write(string.format('"upserts": %d, "upsert_p50_us": %d, "upsert_p99_us": %d}\\n', puts, put50, put99))
end
"""
JSON, BINARY = "application/json", "application/octet-stream"


def raise_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def rows_of(path, limit):
    count, dim = (int(number) for number in np.fromfile(path, "<u4", 2))
    return np.fromfile(path, np.uint8, min(count, limit) * dim, offset=8).reshape(-1, dim)


def fill(roxanne, base, rows, dim, work):
    (work / "keys.txt").write_text("".join(f"{i}\n" for i in range(rows)))
    (work / "data" / "collections").mkdir(parents=True)
    collection = work / "data" / "collections" / "c"

    def run(*command):
        print("$ roxanne", " ".join(str(part) for part in command), flush=True)
        subprocess.run([roxanne, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("create", collection, "--dim", str(dim), "--element", "u8", "--keys", "strings", "--metric", "l2")
    run("insert", collection, base, "--limit", str(rows), "--keys", work / "keys.txt", "--delta-ram", "4G")
    run("merge", collection, "--rebuild", "--progress", "plain")


class Server:
    def __init__(self, roxanne, work):
        self.command = [roxanne, "serve", "--data", work / "data", "--bind", "127.0.0.1:0", "--ram", "2G"]
        self.log = work / "serve.log"

    def start(self):
        """Seconds from the start of the process until /readyz answers 200."""
        begin = time.perf_counter()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"the server did not start; see {self.log}")
        host, port = line.split("//")[1].strip("/ \n").split(":")
        self.address, self.url = (host, int(port)), f"http://{host}:{port}"
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.002)
        return time.perf_counter() - begin

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit(f"the server ended with {self.process.returncode}; see {self.log}")

    def ask(self, method, path, body=None, kind=JSON):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request(method, path, body, {"content-type": kind})
        answer = connection.getresponse()
        status, raw = answer.status, answer.read()
        connection.close()
        return status, raw

    def counters(self):
        """CPU seconds of the process and of its searches; searches and reads."""
        # Behind the name, which may hold spaces: from the third field on.
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        lines = (line.split() for line in self.ask("GET", "/metrics")[1].decode().splitlines() if not line.startswith("#"))
        values = {line[0]: float(line[-1]) for line in lines if line}
        names = ["roxanne_search_cpu_seconds_total", 'roxanne_search_seconds_count{plan="graph"}', "roxanne_search_reads_total"]
        return np.array([cpu, *(values[name] for name in names)])


class Bodies:
    """Files of bodies, for every form of a search."""

    def __init__(self, queries, work):
        self.work, self.dim = work, queries.shape[1]
        self.queries = queries

    def single_json(self):
        lines = (json.dumps({"vector": row.tolist(), "limit": 10}) for row in self.queries)
        return self.kept("single.jsonl", "/collections/c/points/search", JSON, "\n".join(lines).encode(), 0)

    def batch_json(self, n):
        searches = [{"vector": row.tolist(), "limit": 10} for row in self.queries]
        lines = (json.dumps({"searches": searches[i : i + n]}) for i in range(0, len(searches) - n + 1, n))
        return self.kept(f"batch-{n}.jsonl", "/collections/c/points/search/batch", JSON, "\n".join(lines).encode(), 0)

    def binary(self, n):
        rows = self.queries[: len(self.queries) // n * n].astype("<f4")
        return self.kept("rows.f32", "/v1/collections/c/search?limit=10&list_size=100", BINARY, rows.tobytes(), n * self.dim * 4)

    def kept(self, name, path, kind, raw, size):
        (self.work / name).write_bytes(raw)
        return path, kind, str(self.work / name), str(size)


def wrk(server, work, load, connections, seconds):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", work / "load.lua", server.url, "--", *load]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    figures["rate"] = figures["requests"] / figures["seconds"]
    if figures["failed"] or not figures["requests"]:
        print(f"FAILED REQUESTS: {figures['failed']} of {figures['requests']} to {load[0]}", flush=True)
    return figures


def cost(server, work, told, load, searches, seconds):
    """One form of a search: what a request costs with one connection and with eight."""
    wrk(server, work, load, 1, 2)
    figures = {"what": told, "searches_a_request": searches}
    print(f"{told}:")
    for name, connections in [("one", 1), ("eight", 8)]:
        before = server.counters()
        ran = wrk(server, work, load, connections, seconds)
        cpu, engine, counted, reads = server.counters() - before
        each = 1e6 / ran["requests"]
        ran |= {"cpu_us": cpu * each, "engine_us": engine * each, "beside_us": (cpu - engine) * each}
        ran |= {"beside_us_a_search": (cpu - engine) * each / searches, "counted_a_request": counted / ran["requests"]}
        ran |= {"reads_a_search": reads / ran["requests"] / searches}
        figures[name] = ran
        print(
            f"   {name}: {ran['cpu_us']:.0f} us of CPU a request, {ran['engine_us']:.0f} of them in the engine: {ran['beside_us']:.0f} beside it, "
            f"{ran['beside_us_a_search']:.1f} a search; {ran['rate'] * searches:.0f} searches/s, p50 {ran['p50_us']} us, p99 {ran['p99_us']}, "
            f"{ran['reads_a_search']:.2f} reads a search",
            flush=True,
        )
    return figures


def embedded(roxanne, base, query, truth):
    """Searches a second of the base alone, by the engine alone."""
    command = [roxanne, "eval", base, "-q", query, "-g", truth, "--sweep", "list-size=100", "--threads", "2", "--ram", "2G", "--json"]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    rate = json.loads(done.stdout)["points"][0]["qps"]
    print(f"the engine alone, two threads: {rate:.0f} searches/s", flush=True)
    return rate


def costs(server, work, bodies, seconds):
    found = [cost(server, work, "single search, JSON", bodies.single_json(), 1, seconds)]
    for n in (1, 10, 100):
        found.append(cost(server, work, f"batch of {n}, JSON", bodies.batch_json(n), n, seconds))
    path, kind, _, _ = bodies.binary(1)
    # An empty body, as one that is no JSON is refused before a path that is not there.
    status, _ = server.ask("POST", path, b"", kind)
    if status in (404, 405):
        print(f"SKIPPED: binary searches, as this server answers {status} to POST {path}", flush=True)
        return found
    status, raw = server.ask("POST", path, bodies.queries[:1].astype("<f4").tobytes(), kind)
    if status != 200:
        sys.exit(f"POST {path} answers {status}: {raw[:300]}")
    for n in (1, 10, 100):
        found.append(cost(server, work, f"{'single search' if n == 1 else f'batch of {n}'}, binary", bodies.binary(n), n, seconds))
    return found


def beside(told, alone, with_it):
    ratio = with_it["p99_us"] / alone["p99_us"]
    print(
        f"{told}: searches p50 {with_it['p50_us']} us, p99 {with_it['p99_us']}, {with_it['rate']:.0f}/s; alone p50 {alone['p50_us']} us, "
        f"p99 {alone['p99_us']}, {alone['rate']:.0f}/s: p99 {ratio:.2f} times that alone",
        flush=True,
    )
    return {"alone": alone, "beside": with_it, "p99_ratio": ratio}


def mixed(server, work, load, vectors, seconds):
    """Four connections that search, and four of whose requests every tenth is an upsert."""
    points = work / "points.jsonl"
    points.write_text("\n".join(json.dumps(vector) for vector in vectors))

    def run(every):
        command = ["wrk", "-t4", "-c4", f"-d{seconds}s", "--timeout", "30s", "-s", work / "mixed.lua", server.url, "--", *load, str(points), str(every)]
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        figures["rate"] = figures["requests"] / figures["seconds"]
        if figures["failed"]:
            print(f"FAILED REQUESTS: {figures['failed']}", flush=True)
        return figures

    run(0)
    # One after the other, three times, as the machine's speed changes.
    runs = [(run(0), run(10)) for _ in range(3)]
    alone, with_it = sorted(runs, key=lambda pair: pair[1]["p99_us"] / pair[0]["p99_us"])[1]
    ratios = ", ".join(f"{b['p99_us'] / a['p99_us']:.2f}" for a, b in runs)
    figures = beside(f"nine searches, one upsert (the median of {ratios})", alone, with_it) | {"runs": runs}
    print(f"   {with_it['upserts']} upserts: p50 {with_it['upsert_p50_us']} us, p99 {with_it['upsert_p99_us']}", flush=True)
    return figures


class Strangers:
    """Connections that wait, and connections that send a byte of a head a second; who is closed comes again."""

    GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def __init__(self, address, idle, slow):
        self.address, self.counts = address, {"idle": idle, "slow": slow}
        self.stop, self.ready, self.again = threading.Event(), threading.Event(), 0
        self.selector, self.sockets = selectors.DefaultSelector(), {"idle": set(), "slow": set()}

    def come(self, kind):
        stranger = socket.create_connection(self.address, timeout=30)
        stranger.send(self.GET if kind == "idle" else b"G")
        stranger.setblocking(False)
        self.selector.register(stranger, selectors.EVENT_READ, kind)
        self.sockets[kind].add(stranger)

    def heard(self, stranger, kind):
        try:
            if stranger.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.selector.unregister(stranger)
        self.sockets[kind].discard(stranger)
        stranger.close()
        self.come(kind)
        self.again += 1

    def work(self):
        for kind, count in self.counts.items():
            for _ in range(count):
                self.come(kind)
        self.ready.set()
        drop = time.monotonic()
        while not self.stop.is_set():
            for key, _ in self.selector.select(0.1):
                self.heard(key.fileobj, key.data)
            if time.monotonic() - drop >= 1:
                drop += 1
                for stranger in list(self.sockets["slow"]):
                    try:
                        stranger.send(b"x")
                    except OSError:
                        pass

    def __enter__(self):
        self.thread = threading.Thread(target=self.work)
        self.thread.start()
        if not self.ready.wait(60):
            sys.exit("the connections do not come about")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        for stranger in self.sockets["idle"] | self.sockets["slow"]:
            stranger.close()


def strangers(server, work, load, seconds):
    idle, slow = 2000, 200
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * (idle + slow):
        print(f"SKIPPED: {idle + slow} connections, as the limit of open files is below {2 * (idle + slow)}", flush=True)
        return None
    wrk(server, work, load, 4, 2)
    alone = wrk(server, work, load, 4, seconds)
    with Strangers(server.address, idle, slow) as those:
        with_it = wrk(server, work, load, 4, seconds)
        metrics = server.ask("GET", "/metrics")[1].decode().splitlines()
    open_now = next((float(line.split()[-1]) for line in metrics if line.startswith("roxanne_http_connections ")), None)
    figures = beside(f"beside {idle} idle and {slow} slow connections", alone, with_it)
    print(f"   {open_now:.0f} connections are open at the end; {those.again} were closed by the server and came again", flush=True)
    return figures | {"idle": idle, "slow": slow, "came_again": those.again, "open": open_now}


def restarts(server):
    found = []
    for _ in range(3):
        server.stop()
        found.append(server.start())
    print(f"restart until /readyz, caches of the kernel warm: {', '.join(f'{seconds:.3f}' for seconds in found)} s", flush=True)
    return found


@contextmanager
def running(roxanne, work):
    server = Server(roxanne, work)
    server.start()
    try:
        yield server
        server.stop()
    finally:
        server.process.kill()


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory / (1 << 30), 1), "kernel": platform.release()}


def commit():
    here = Path(__file__).resolve().parent

    def git(*command):
        return subprocess.run(["git", "-C", here, *command], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")


def main(options):
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    roxanne, work = options.roxanne.resolve(), options.work.resolve()
    rows = min(int(np.fromfile(options.base, "<u4", 1)[0]), options.limit)
    queries = rows_of(options.query, QUERIES)
    raise_limit(8192)
    is_new = not work.exists()
    work.mkdir(exist_ok=True)
    (work / "load.lua").write_text(LOAD)
    (work / "mixed.lua").write_text(MIXED)
    about = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "machine": machine(), "commit": commit(), "base": options.base.name}
    about |= {"rows": rows, "dim": queries.shape[1], "seconds": options.seconds}
    print(json.dumps(about), flush=True)
    if is_new:
        fill(roxanne, options.base.resolve(), rows, queries.shape[1], work)
    bodies = Bodies(queries, work)
    base = next((work / "data" / "collections" / "c").glob("base-*"))
    alone = embedded(roxanne, base, options.query, options.truth) if options.truth else None
    with running(roxanne, work) as server:
        load = bodies.single_json()
        figures = {
            "embedded_qps": alone,
            "costs": costs(server, work, bodies, options.seconds),
            "mixed": mixed(server, work, load, queries.tolist(), options.seconds),
            "strangers": strangers(server, work, load, options.seconds),
            "restart_seconds": restarts(server),
        }
    if options.json:
        options.json.write_text(json.dumps({"about": about} | figures, indent=1) + "\n")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("roxanne", type=Path)
parser.add_argument("base", type=Path)
parser.add_argument("query", type=Path)
parser.add_argument("work", type=Path)
parser.add_argument("--limit", type=int, default=1 << 40)
parser.add_argument("--seconds", type=int, default=10)
parser.add_argument("--truth", type=Path)
parser.add_argument("--json", type=Path)
main(parser.parse_args())
