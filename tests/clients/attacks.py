"""What strangers send: slow, endless, lying and broken requests at a real server, over raw sockets. python3 attacks.py ROXANNE [--long]

Whatever comes, others are answered right, memory stays flat, nothing beside the data is made or goes, the server lives and ends well.
What is asserted is what it does, never how fast; only that who is slow is gone (11 s are promised, 15 allowed). --long: more of them, and
bodies that drip until they are cut off.
"""

import argparse
import concurrent.futures
import gzip
import http.client
import json
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

POINTS = 50
# Seconds: who is slow is gone; what is not slow has an answer, on whatever machine.
GONE = 15
PATIENCE = 60
MIB = 1 << 20
BODY = 32 * MIB
CONNECTIONS = 4096
FLAT = 96 * MIB
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
SEARCH = b"POST /collections/docs/points/search HTTP/1.1\r\n" + HEAD
# A second request within the bytes of the first: its answer alone has this word.
SMUGGLED = b"GET /collections/smuggled/exists HTTP/1.1\r\nHost: localhost\r\n\r\n"


def vector(i):
    return [float(i), float(i * i % 7), 0.0, 1.0]


def query(i):
    return json.dumps({"vector": vector(i), "limit": 3}).encode()


def sized(head, body):
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Peer:
    """One connection, of which no byte is hidden."""

    def __init__(self, address, timeout=PATIENCE):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, raw):
        """False where nobody listens any more."""
        try:
            self.socket.sendall(raw)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def hears(self):
        """Whether there is something to read, or the end."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def more(self):
        """False at the end of the connection."""
        try:
            some = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self.got += some
        return bool(some)

    def answer(self):
        """Status and body of the next answer, `None` at the end; TimeoutError where neither comes."""
        while b"\r\n\r\n" not in self.got:
            if not self.more():
                assert not self.got, f"half an answer: {self.got[:200]}"
                return None
        head, self.got = self.got.split(b"\r\n\r\n", 1)
        first, *lines = head.split(b"\r\n")
        assert first.startswith(b"HTTP/1."), first
        length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        while len(self.got) < length:
            assert self.more(), f"half an answer: {head}"
        body, self.got = self.got[:length], self.got[length:]
        return int(first.split()[1]), body

    def answers(self):
        """All until the end of the connection, and whether that came."""
        found = []
        try:
            while (one := self.answer()) is not None:
                found.append(one)
        except TimeoutError:
            return found, False
        return found, True


def exchange(address, raw, timeout=PATIENCE):
    """All answers to these bytes until the server closes, or is silent for so long."""
    with Peer(address, timeout) as peer:
        peer.send(raw)
        return peer.answers()


def one(address, raw, timeout=PATIENCE):
    """The first answer to these bytes, `None` where the server closed without."""
    with Peer(address, timeout) as peer:
        peer.send(raw)
        return peer.answer()


def refused(told, answer, *statuses):
    """Closed, or one of these answers, in a few words."""
    if answer is not None:
        status, body = answer
        assert status in statuses and len(body) < 4096, (told, status, body[:200], len(body))


class Others:
    """Clients of good will, one that keeps its connection and one that makes new ones. No answer to them may be wrong."""

    def __init__(self, address):
        self.address, self.failed, self.stop = address, [], threading.Event()
        self.kept = http.client.HTTPConnection(*address, timeout=PATIENCE)
        self.counts = {self.keeps: 0, self.comes: 0}
        # Held while all connections are taken, as then no other is to be had.
        self.room = threading.Lock()

    def ask(self, connection, method, path, body=None):
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
        assert answer.status == 200, (method, path, answer.status, raw[:200])
        return json.loads(raw)["result"]

    def search(self, connection, i):
        found = self.ask(connection, "POST", "/collections/docs/points/search", query(i))
        assert len(found) == 3 and found[0]["id"] == i and found[0]["score"] == 0, (i, found)

    def keeps(self, turn):
        self.search(self.kept, turn % POINTS)
        if turn % 5 == 0:
            point = {"id": f"turn-{turn % 100}", "vector": [1000.0 + turn, 0.0, 0.0, 1.0]}
            self.ask(self.kept, "PUT", "/collections/docs/points", json.dumps({"points": [point]}))
            there = self.ask(self.kept, "POST", "/collections/docs/points", json.dumps({"ids": [point["id"]], "with_vector": True}))
            assert there[0]["vector"] == point["vector"], (point, there)

    def comes(self, turn):
        with self.room:
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
            self.search(connection, turn % POINTS)
            connection.close()

    def guarded(self, work):
        turn = 0
        while not self.stop.wait(0.02):
            try:
                work(turn)
            except Exception as error:  # noqa: BLE001 - whatever it was, another client was not served
                self.failed.append(f"{work.__name__}, turn {turn}: {error!r}")
                return
            turn += 1
            self.counts[work] = turn

    def __enter__(self):
        self.threads = [threading.Thread(target=self.guarded, args=[work]) for work in self.counts]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def answered(self, who=None, times=5):
        """They are answered so often from now on, while the caller holds what it holds."""
        who = who or list(self.counts)
        before, until = dict(self.counts), time.monotonic() + GONE
        while any(self.counts[work] < before[work] + times for work in who):
            assert not self.failed, self.failed
            times_of = [(work.__name__, self.counts[work] - before[work]) for work in who]
            assert time.monotonic() < until, f"others are not answered meanwhile: {times_of}"
            time.sleep(0.05)


class Attacks:
    def __init__(self, address, pid, data, others, long):
        self.address, self.pid, self.data, self.others, self.long = address, pid, data, others, long

    # What waits: run beside each other.

    def drip(self, peers, drops, until, stop=None):
        """One of `drops` a second into each, until all were closed by the other side or time is up; how many were not."""
        end, turn, stop = time.monotonic() + until, 0, stop or threading.Event()
        while peers and time.monotonic() < end and not stop.wait(1):
            left = []
            for peer in peers:
                try:
                    # An answer, as 408, is read, and the end awaited.
                    is_there = not peer.hears() or peer.more()
                    if is_there and not peer.got:
                        peer.socket.send(drops[turn % len(drops)])
                except (BrokenPipeError, ConnectionResetError):
                    is_there = False
                if is_there:
                    left.append(peer)
                else:
                    peer.socket.close()
            peers, turn = left, turn + 1
        for peer in peers:
            peer.socket.close()
        return len(peers)

    def slow_heads(self):
        peers = [Peer(self.address) for _ in range(2000 if self.long else 200)]
        # A tenth were good before.
        for peer in peers[::10]:
            peer.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.answer()[0] == 200
        left = self.drip(peers, [bytes([byte]) for byte in b"GET /healthz HTTP/1.1\r\n"], GONE)
        assert left == 0, f"{left} heads that never end are read for {GONE} s"

    def slow_lines(self):
        """A head of lines, each in time, is no quicker."""
        peers = [Peer(self.address) for _ in range(50)]
        for peer in peers:
            peer.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        left = self.drip(peers, [b"a: b\r\n"], GONE)
        assert left == 0, f"{left} heads that never end are read for {GONE} s"

    def stalled_bodies(self):
        def stalled(head):
            with Peer(self.address, GONE) as peer:
                peer.send(head)
                refused("a body that stops", peer.answer(), 408)
                refused("and then", peer.answer())

        heads = [SEARCH + b"Content-Length: 1000\r\n\r\n" + b'{"vector":', SEARCH + b"Content-Length: 1000\r\n\r\n"]
        heads.append(SEARCH + b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\n")
        self.each(stalled, heads * 5)

    def dripping_bodies(self):
        peers = [Peer(self.address) for _ in range(100)]
        for peer in peers:
            peer.send(SEARCH + b"Content-Length: 100000\r\n\r\n")
        left = self.drip(peers, [b"["], 130 if self.long else 8)
        assert left == 0 or not self.long, f"{left} bodies that drip are read for 130 s"

    def each(self, work, items, threads=40):
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, items))

    # What lies.

    def lengths(self):
        """Content-Length and what comes are not the same."""
        good = query(7)
        # Shorter: what is behind it is another request, or none.
        found, closed = exchange(self.address, SEARCH + b"Content-Length: 10\r\n\r\n" + good)
        assert [status for status, _ in found] in ([400], [400, 400]) and closed, found
        # Longer, and no more comes.
        for more in [1, 1000]:
            with Peer(self.address, GONE) as peer:
                peer.send(SEARCH + b"Content-Length: %d\r\n\r\n" % (len(good) + more) + good)
                peer.socket.shutdown(socket.SHUT_WR)
                refused("a body that broke off", peer.answer(), 400, 408)
        # Over the limit: said before the body comes, and none is asked for.
        for length in [BODY + 1, 1 << 40, (1 << 63) - 1]:
            for expect in [b"", b"Expect: 100-continue\r\n"]:
                answer = one(self.address, SEARCH + expect + b"Content-Length: %d\r\n\r\n" % length)
                assert answer is not None and answer[0] == 413, (length, answer)
        refused("2^64", one(self.address, SEARCH + b"Content-Length: %d\r\n\r\n" % (1 << 64)), 400, 413)
        for length in [b"-1", b"+5", b"5, 6", b"5 6", b"0x5", b"", b"5e0", b"\xb2", b"9" * 400]:
            refused(length, one(self.address, SEARCH + b"Content-Length: " + length + b"\r\n\r\n" + good), 400, 413)

    def smuggling(self):
        """One request with two meanings is none, or the last of its connection."""
        good = query(7)
        chunked = b"Transfer-Encoding: chunked\r\n"
        ended = b"%x\r\n%s\r\n0\r\n\r\n" % (len(good), good)
        length = b"Content-Length: %d\r\n"
        refuse = {
            "two lengths": length % len(good) + length % 0 + b"\r\n" + good,
            "two lengths, the longer first": length % 500 + length % len(good) + b"\r\n" + good,
            "a space before the colon": b"Content-Length : %d\r\n\r\n" % len(good) + good,
            "chunked, with a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n" + ended,
            "a line folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + ended,
            "not chunked at last": b"Transfer-Encoding: chunked, identity\r\n\r\n" + ended,
            "unknown": b"Transfer-Encoding: xchunked\r\n\r\n" + ended,
            "two encodings": chunked + b"Transfer-Encoding: identity\r\n\r\n" + ended,
            "a control character": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + ended,
            "a size of a chunk that overflows": chunked + b"\r\n" + b"f" * 17 + b"\r\n" + good,
            "a size below zero": chunked + b"\r\n-1\r\n" + good,
            "a size in another form": chunked + b"\r\n0x5\r\n" + good,
            "no line behind a chunk": chunked + b"\r\n%x\r\n%sXX0\r\n\r\n" % (len(good), good),
            "a name that is none": b"Content-Length: %d\r\nX Y: 1\r\n\r\n" % len(good) + good,
            "NUL in a value": b"X: a\0b\r\n" + length % len(good) + b"\r\n" + good,
            "a bare CR in a value": b"X: a\rContent-Length: 0\r\n" + length % len(good) + b"\r\n" + good,
        }

        def never(case):
            told, rest = case
            found, closed = exchange(self.address, SEARCH + rest + SMUGGLED, GONE)
            assert closed and len(found) <= 1, (told, closed, found)
            refused(told, found[0] if found else None, 400, 501)

        self.each(never, refuse.items())
        # These may be taken for what the standard says that they are; then the connection ends.
        last = {
            "both, the length first": length % 6 + chunked + b"\r\n" + ended,
            "both, the length last": chunked + length % 6 + b"\r\n" + ended,
            "both, the length of all": length % (len(ended) + len(SMUGGLED)) + chunked + b"\r\n" + ended,
        }

        def final(case):
            told, rest = case
            found, closed = exchange(self.address, SEARCH + rest + SMUGGLED, GONE)
            assert closed and len(found) <= 1 and b"exists" not in b"".join(body for _, body in found), (told, closed, found)
            assert all(status in (200, 400) for status, _ in found), (told, found)

        self.each(final, last.items())
        old = SEARCH.replace(b"HTTP/1.1", b"HTTP/1.0")
        found, closed = exchange(self.address, old + chunked + b"\r\n" + ended + SMUGGLED)
        assert closed and all(status == 400 for status, _ in found), ("chunked in HTTP/1.0", found)
        # The same length twice is a length: refused, or both requests have the answers that they ask for.
        with Peer(self.address) as peer:
            peer.send(SEARCH + length % len(good) * 2 + b"\r\n" + good + SMUGGLED)
            first, second = peer.answer(), peer.answer()
            assert first is None or first[0] == 400 or (first[0], second[0]) == (200, 200), (first, second)
        # Spaces within are allowed.
        assert one(self.address, SEARCH + b"Transfer-Encoding:   chunked \r\n\r\n" + ended)[0] == 200

    def no_http(self):
        hello = bytes.fromhex("1603010200010001fc0303") + bytes(range(32)) + b"\x20" + bytes(32) + b"\x00\x02\x13\x01\x01\x00" + bytes(400)
        noise = random.Random(1)
        raws = {
            "HTTP/0.9": b"GET /\r\n",
            "HTTP/0.9 in full": b"GET /collections\r\n\r\n",
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            "HTTP/3.7": b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n",
            "TLS": hello,
            "SSH": b"SSH-2.0-OpenSSH_9.7\r\n",
            "zeros": bytes(70_000),
            "a letter": b"A" * 70_000,
            "lines": b"\r\n" * 50_000 + b"!\r\n\r\n",
            "no name of a method": b"G\x01T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "NUL in a path": b"GET /collections/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a space in a path": b"GET /collections/a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "no host's name": b"GET http://[::1/collections HTTP/1.1\r\nHost: localhost\r\n\r\n",
        }
        raws |= {f"noise {i}": noise.randbytes(noise.randrange(1, 5000)) + b"\r\n\r\n" for i in range(30)}

        def none(case):
            told, raw = case
            found, closed = exchange(self.address, raw, GONE)
            assert closed and len(found) <= 1, (told, closed, found)
            refused(told, found[0] if found else None, 400, 414, 431, 505)

        self.each(none, raws.items())

    def heads(self):
        get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        for told, raw in {
            "100 KB in a value": get + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
            "100 KB in a name": get + b"a" * 100_000 + b": x\r\n\r\n",
            "10,000 lines": get + b"".join(b"x%d: 1\r\n" % i for i in range(10_000)) + b"\r\n",
            "10,000 lines of one name": get + b"a:b\r\n" * 10_000 + b"\r\n",
            "100 KB in a path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "1 MB, and no end": get + b"X: " + b"a" * MIB,
        }.items():
            found, closed = exchange(self.address, raw, GONE)
            assert closed and len(found) <= 1, (told, closed, found)
            refused(told, found[0] if found else None, 400, 414, 431)

    def pipelined(self):
        searches = b"".join(sized(SEARCH, query(i % POINTS)) for i in range(200))
        with Peer(self.address) as peer:
            peer.send(searches)
            for i in range(200):
                status, body = peer.answer()
                assert status == 200 and json.loads(body)["result"][0]["id"] == i % POINTS, (i, status, body)
            # One that is wrong, then one that is no HTTP: those before are answered, none behind.
            peer.send(sized(SEARCH, b"[") + sized(SEARCH, query(3)) + b"\x01\x02\r\n\r\n" + sized(SEARCH, query(4)))
            found, closed = peer.answers()
            assert [status for status, _ in found][:2] == [400, 200] and len(found) <= 3 and closed, found
        found, closed = exchange(self.address, sized(SEARCH + b"Connection: close\r\n", query(1)) + sized(SEARCH, query(2)))
        assert [status for status, _ in found] == [200] and closed, found

    # What is too much.

    def endless(self, head, piece, statuses, most=BODY + 32 * MIB):
        """Sends until there is an answer or an end; no more than a body and what sockets hold may be taken."""
        with Peer(self.address) as peer:
            sent = 0
            peer.send(head)
            while not peer.hears() and peer.send(piece):
                sent += len(piece)
                assert sent < most, f"{sent >> 20} MiB are taken of a body without end"
            refused("a body without end", peer.answer(), *statuses)

    def endless_bodies(self):
        chunked = SEARCH + b"Transfer-Encoding: chunked\r\n\r\n"
        block = b"10000\r\n" + b"1" * 65536 + b"\r\n"
        for _ in range(10 if self.long else 2):
            self.endless(chunked, block, [413])
        # In small chunks, which weigh more than what is in them.
        small = 1 if self.long else 64
        self.endless(chunked, (b"%x\r\n" % small + b"1" * small + b"\r\n") * 1000, [413], 8 * BODY)
        self.endless(chunked + b"1;", b"a" * 65536, [400, 413])
        self.endless(chunked + b"0\r\n", b"a: " + b"b" * 1000 + b"\r\n", [400, 413])
        # Where no body is expected, and none is read.
        for path in [b"/healthz", b"/collections", b"/nothing"]:
            self.endless(b"GET " + path + b" HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n", block, [200, 400, 404, 413])

    def bombs(self):
        wrong = []

        def post(told, body, *statuses, head=SEARCH):
            answer = one(self.address, sized(head, body))
            if answer is None or answer[0] not in statuses or len(answer[1]) > 4096:
                wrong.append((told, answer and (answer[0], answer[1][:60], f"{len(answer[1])} bytes")))

        put = b"PUT /collections/docs/points HTTP/1.1\r\n" + HEAD
        post("deep lists", b"[" * 100_000 + b"]" * 100_000, 400)
        post("deep lists, open", b"[" * 100_000, 400)
        post("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400)
        post("a deep filter", b'{"vector": [1, 2, 3, 4], "filter": ' + b'{"must": [' * 50_000 + b"]}" * 50_000 + b"}", 400)
        numbers = b"1," * (15 * MIB - 100) + b"1]}"
        post("numbers for points", b'{"points": [' + numbers, 400, head=put)
        post("numbers for a vector", b'{"vector": [' + numbers, 400)
        post("numbers for an id", b'{"points": [{"vector": [1, 2, 3, 4], "id": [' + numbers[:-1] + b"}]}", 400, head=put)
        post("numbers for nothing", b'{"vector": [1, 2], "more": [' + numbers, 400)
        post("a long number", b'{"vector": [' + b"1" * (30 * MIB) + b", 1, 1, 1]}", 400)
        post("a long text", b'{"vector": "' + b"a" * (30 * MIB) + b'"}', 400, 404)
        post("a long name", b'{"' + b"a" * (30 * MIB) + b'": 1}', 400)
        assert not wrong, wrong

    def gzip(self):
        """Bodies are taken as they are; one that is packed is told so."""
        packed = SEARCH + b"Content-Encoding: gzip\r\n"
        bomb, wrong = gzip.compress(bytes(30 * MIB), 9), []
        for told, raw in {
            "a search": sized(packed, gzip.compress(query(5), mtime=0)),
            "a bomb": sized(packed, bomb),
            "not packed": sized(packed, query(5)),
            "deflate": sized(SEARCH + b"Content-Encoding: deflate\r\n", query(5)),
        }.items():
            answer = one(self.address, raw)
            if answer is None or answer[0] != 415:
                wrong.append((told, answer and (answer[0], answer[1][:100])))
        assert not wrong, wrong

    def memory(self):
        field = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
        return int(field.split()[1]) << 10

    def flat(self, before):
        # What was freed may be given back a little later.
        until = time.monotonic() + GONE
        while (grown := self.memory() - before) >= FLAT and time.monotonic() < until:
            time.sleep(0.1)
        print(f"   memory: {before >> 20} MiB before what is too much, {(before + grown) >> 20} after", flush=True)
        assert grown < FLAT, f"{grown >> 20} MiB more than {before >> 20} are held when all bodies are gone"

    # What is a path.

    def tree(self):
        """All around the data, but what the other clients write."""
        root = self.data.parents[1]
        docs = self.data / "collections" / "docs"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_relative_to(docs))

    def traversal(self):
        for at in [self.data.parents[1], self.data.parent, self.data, self.data / "collections"]:
            for kind in ["victim", "victim.recovered", ".victim", ".victim.deleted"]:
                (at / kind).mkdir()
                (at / kind / "file").write_text("mine")
        before = self.tree()
        up = [start + "..%2f" * depth + "victim" for start in ("%2f", "") for depth in range(1, 5)]
        names = ["..", ".", "%2e%2e", "%2e", "%2e%2e%2f", "%2E%2E%2Fx", "..%5cx", "a%2fb", "%2ftmp%2fx", "%252e%252e", ".victim"]
        names += ["x" * 300, "%61" * 300, "%00", "a%00b", "docs%00", "docs%2f", "docs%2f..%2fdocs", "a%0d%0aX:%20y"]
        names += ["%ff", "%c0%ae%c0%ae", "%", "%2", "%zz", "%20", "%c3%a4", "~", "a:b"]
        config = b'{"vectors": {"size": 4, "distance": "Euclid"}}'
        wrong = []
        with Peer(self.address) as peer:

            def ask(method, path, body=b"", allowed=(400, 404)):
                peer.send(sized(f"{method} {path} HTTP/1.1\r\n".encode() + HEAD, body))
                answer = peer.answer()
                assert answer is not None, (method, path, "closed")
                # To delete what is not there is no mistake, and does nothing.
                is_nothing = method == "DELETE" and answer[0] == 200 and json.loads(answer[1])["result"] is False
                if not (answer[0] in allowed or is_nothing) or str(self.data.parent).encode() in answer[1]:
                    wrong.append((method, path[:60], body[:60], answer[0], answer[1][:150]))

            for name in names + up:
                ask("PUT", f"/collections/{name}", config)
                ask("GET", f"/collections/{name}")
                ask("DELETE", f"/collections/{name}")
                ask("PUT", f"/collections/{name}/points", b'{"points": []}')
                ask("POST", f"/collections/{name}/points/search", query(1))
                ask("POST", f"/collections/{name}/snapshots")
                ask("PUT", f"/collections/{name}/snapshots/recover", b'{"location": "victim"}')
                ask("DELETE", f"/collections/{name}/snapshots/victim")
                ask("DELETE", f"/collections/docs/snapshots/{name}")
                ask("GET", f"/collections/docs/points/{name}")
                ask("POST", f"/v1/collections/{name}/promote", b'{"index": "victim", "sequence": 1}')
                ask("GET", f"/v1/collections/{name}")
                ask("GET", f"/v1/jobs/{name}")
            texts = ["..", "../victim", "../../victim", "/etc", "", ".", "a/b", "a\\b", "a\0b", "x" * 300, "victim/..", ".victim", "\r\n"]
            for name in texts:
                text = json.dumps(name).encode()
                ask("POST", "/v1/collections/docs/promote", b'{"sequence": 1, "index": %s}' % text)
                ask("PUT", "/collections/docs/snapshots/recover", b'{"location": %s}' % text)
                ask("PUT", "/collections/docs/snapshots/recover", b'{"location": %s}' % json.dumps("file:///" + name).encode())
                alias = b'{"actions": [{"create_alias": {"collection_name": "docs", "alias_name": %s}}]}' % text
                ask("POST", "/collections/aliases", alias)
                alias = b'{"actions": [{"create_alias": {"collection_name": %s, "alias_name": "x"}}]}' % text
                ask("POST", "/collections/aliases", alias)
            # Paths that are no route.
            paths = ["/../../etc/passwd", "/collections/../../../etc/passwd", "/collections/docs/../../x", "//etc/passwd"]
            for path in [*paths, "/collections/docs/points/../../x"]:
                ask("GET", path, allowed=(400, 404, 501))
                ask("PUT", path, config, allowed=(400, 404, 501))
        after = self.tree()
        assert not wrong and before == after, (wrong, "gone", sorted(set(before) - set(after)), "made", sorted(set(after) - set(before)))

    # What is many.

    def crowd(self):
        wanted = CONNECTIONS + 104
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted + 400:
            return f"SKIPPED: {wanted} CONNECTIONS ARE NOT TRIED, as this machine's hard limit of open files is below {wanted + 400}"
        crowd = []
        with self.others.room:
            try:
                crowd = [Peer(self.address) for _ in range(wanted)]
                self.others.answered([self.others.keeps])
                closed = 0
                for peer in crowd:
                    peer.socket.setblocking(False)
                    try:
                        closed += not peer.socket.recv(1)
                    except BlockingIOError:
                        pass
                    except ConnectionResetError:
                        closed += 1
                assert wanted - CONNECTIONS <= closed, f"{wanted - closed} connections at once, of {CONNECTIONS} that are allowed"
            finally:
                for peer in crowd:
                    peer.socket.close()
            # There is room again for who comes.
            until = time.monotonic() + GONE
            while one(self.address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") is None:
                assert time.monotonic() < until, "no room when all have gone"
                time.sleep(0.1)

    def promised_bodies(self):
        """Who says that much will come, and lets it drip, takes no other's turn."""
        peers = [Peer(self.address) for _ in range(20)]
        for peer in peers:
            peer.send(SEARCH + b"Content-Length: %d\r\n\r\n" % BODY)
        stop = threading.Event()
        drops = threading.Thread(target=self.drip, args=[peers, [b"["], PATIENCE, stop])
        drops.start()
        try:
            # All have come to where they wait.
            time.sleep(2)
            self.others.answered()
        finally:
            stop.set()
            drops.join()


@contextmanager
def served(roxanne, data):
    with subprocess.Popen([roxanne, "serve", "--data", data, "--bind", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            host, port = server.stdout.readline().split("//")[1].strip("/ \n").split(":")
            yield server, (host, int(port))
        finally:
            server.kill()


def fill(address):
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    points = [{"id": i, "vector": vector(i)} for i in range(POINTS)]
    config = {"vectors": {"size": 4, "distance": "Euclid"}}
    for path, body in [("/collections/docs", config), ("/collections/docs/points", {"points": points})]:
        connection.request("PUT", path, json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


def end(server, address, long):
    """Told to stop beside one that is idle and one that has sent nothing, or half a head."""
    with Peer(address) as idle, Peer(address) as half:
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.answer()[0] == 200
        # The rest of it is waited for.
        half.send(b"GET / HT" if long else b"")
        assert server.poll() is None, f"the server ended: {server.returncode}"
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0, server.returncode


def main(roxanne, long):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    failed, skipped = [], []

    def case(work):
        begin = time.monotonic()
        try:
            said = work()
        except Exception as error:  # noqa: BLE001 - the others are tried too
            failed.append(work.__name__)
            where = traceback.extract_tb(error.__traceback__)
            print(f"FAILED {work.__name__}, line {[frame.lineno for frame in where]}: {error!r:.1500}", flush=True)
        else:
            skipped.extend([said] if said else [])
            print(said or f"ok {work.__name__}, {time.monotonic() - begin:.1f} s", flush=True)

    with tempfile.TemporaryDirectory() as top:
        data = Path(top).resolve() / "around" / "data"
        data.parent.mkdir()
        with served(roxanne, data) as (server, address):
            fill(address)
            with Others(address) as others:
                attacks = Attacks(address, server.pid, data, others, long)
                waits = [attacks.slow_heads, attacks.slow_lines, attacks.stalled_bodies, attacks.dripping_bodies, attacks.lengths]
                waits += [attacks.smuggling, attacks.no_http]
                threads = [threading.Thread(target=case, args=[work]) for work in waits]
                for thread in threads:
                    thread.start()
                time.sleep(2)
                case(others.answered)
                for work in [attacks.pipelined, attacks.traversal]:
                    case(work)
                for thread in threads:
                    thread.join()

                before = attacks.memory()

                def memory_is_flat():
                    attacks.flat(before)

                # What is held on to shows when they come again.
                for work in [attacks.heads, attacks.endless_bodies, *[attacks.bombs] * 3, attacks.gzip, memory_is_flat]:
                    case(work)
                for work in [attacks.crowd, attacks.promised_bodies, others.answered]:
                    case(work)
            if others.failed:
                failed.append("others")
                print(f"FAILED others: {others.failed}")
            counts = sum(others.counts.values())

            def ends_well():
                end(server, address, long)

            case(ends_well)
    if failed:
        sys.exit(f"attacks: {', '.join(failed)} failed")
    for said in skipped:
        print(said, file=sys.stderr)
    print(f"attacks: others were answered {counts} times meanwhile, none of them wrong; memory flat, nothing beside the data")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("roxanne")
parser.add_argument("--long", action="store_true")
options = parser.parse_args()
main(options.roxanne, options.long)
