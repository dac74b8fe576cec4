"""Closed-loop load on loopback: ``wrk`` where it is installed, otherwise a small generator of its own."""

import asyncio
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import uvloop

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Load:
    """What a slice of load saw; latencies in milliseconds.

    Attributes:
        answers: of any status.
        rate: answers a second.
        good: answers with a 2xx status a second, of those within the deadline if there is one.
        errors: answers with another status, and connections that broke.
    """

    answers: float
    rate: float
    good: float
    p50: float
    p99: float
    errors: int


def measure(url, bodies, clients, seconds, *, headers=None, deadline_s=None):
    """``clients`` connections that post ``bodies`` in turn as fast as they are answered."""
    if shutil.which("wrk") and deadline_s is None:
        return _wrk(url, bodies, clients, seconds, headers or {})
    arguments = [sys.executable, __file__, url, str(clients), str(seconds), str(deadline_s or float("inf"))]
    sent = orjson.dumps([headers or {}, bodies])
    output = subprocess.run(arguments, input=sent, capture_output=True, check=True).stdout
    return Load(**orjson.loads(output))


def _wrk(url, bodies, clients, seconds, headers):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bodies").write_bytes(b"\n".join(map(orjson.dumps, bodies)))
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.headers["Content-Type"] = "application/json"\nlocal requests, sent = {}, 0\n'
            "function init()\n"
            f'  for body in io.lines("{folder}/bodies") do\n'
            '    requests[#requests + 1] = wrk.format("POST", nil, nil, body)\n'
            "  end\nend\n"
            "function request()\n  sent = sent + 1\n  return requests[sent % #requests + 1]\nend\n"
        )
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script)]
        command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        command.append(url)
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = int(found.group(1)) if found else 0
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))
    return Load(rate * seconds, rate, rate - errors / seconds, _latency(output, "50%"), _latency(output, "99%"), errors)


def _latency(output, percentile):
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", output).groups()
    return float(value) * UNITS[unit]


class _Client(asyncio.Protocol):
    """One connection, which sends the next request as soon as one is answered. Costs a fifth of what streams do, as
    generator and server share the machine's cores.
    """

    def __init__(self, requests, until, deadline_s):
        self.requests = requests
        self.until = until
        self.deadline_s = deadline_s
        self.latencies = []
        self.good = 0
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport):
        self._transport = transport
        self._send()

    def data_received(self, data):
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(LENGTH.search(head).group(1)):
            return
        self.latencies.append(time.perf_counter() - self._started)
        fine = head.startswith(b"HTTP/1.1 2")
        self.errors += not fine
        self.good += fine and self.latencies[-1] <= self.deadline_s
        self._received = b""
        if time.perf_counter() < self.until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error):
        self.errors += error is not None or time.perf_counter() < self.until
        self.done.set_result(None)

    def _send(self):
        self._started = time.perf_counter()
        self._transport.write(next(self.requests))


async def _generate(url, headers, bodies, clients, seconds, deadline_s):
    host, port, path = re.fullmatch(r"http://([^:/]+):(\d+)(/.*)", url).groups()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "Content-Length: "
    requests = [b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body) for body in map(orjson.dumps, bodies)]
    started, loop = time.perf_counter(), asyncio.get_running_loop()
    turns = itertools.cycle(requests)
    made = [_Client(turns, started + seconds, deadline_s) for _ in range(clients)]
    for client in made:
        await loop.create_connection(lambda client=client: client, host, int(port))
    await asyncio.gather(*(client.done for client in made))
    elapsed = time.perf_counter() - started
    milliseconds = np.array([latency for client in made for latency in client.latencies]) * 1e3
    p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
    good, errors = (sum(getattr(client, what) for client in made) for what in ("good", "errors"))
    return Load(len(milliseconds), len(milliseconds) / elapsed, good / elapsed, p50, p99, errors)


if __name__ == "__main__":
    url, clients, seconds, deadline_s = sys.argv[1:]
    headers, bodies = orjson.loads(sys.stdin.buffer.read())
    load = uvloop.run(_generate(url, headers, bodies, int(clients), float(seconds), float(deadline_s)))
    sys.stdout.buffer.write(orjson.dumps(load))
