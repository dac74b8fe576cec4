"""Closed-loop load on loopback: ``wrk`` where it is installed, otherwise a small generator of its own."""

import asyncio
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

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Load:
    """What a slice of load saw; latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def measure(url, body, clients, seconds):
    """``clients`` connections that post ``body`` as fast as they are answered."""
    if shutil.which("wrk"):
        return _wrk(url, body, clients, seconds)
    arguments = [sys.executable, __file__, url, str(clients), str(seconds)]
    output = subprocess.run(arguments, input=orjson.dumps(body), capture_output=True, check=True).stdout
    return Load(**orjson.loads(output))


def _wrk(url, body, clients, seconds):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body.json").write_bytes(orjson.dumps(body))
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f'wrk.body = io.open("{folder}/body.json"):read("*a")\n'
        )
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Load(
        float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
        _latency(output, "50%"),
        _latency(output, "99%"),
        int(failed.group(1)) if failed else 0,
    )


def _latency(output, percentile):
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", output).groups()
    return float(value) * UNITS[unit]


async def _client(host, port, request, until, latencies):
    reader, writer = await asyncio.open_connection(host, port)
    errors = 0
    while (started := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE).group(1)))
        errors += b" 200 " not in head.split(b"\r\n", 1)[0]
        latencies.append(time.perf_counter() - started)
    writer.close()
    return errors


async def _generate(url, body, clients, seconds):
    host, port, path = re.fullmatch(r"http://([^:/]+):(\d+)(/.*)", url).groups()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request, latencies = head.encode() + body, []
    started = time.perf_counter()
    until = started + seconds
    errors = await asyncio.gather(*(_client(host, int(port), request, until, latencies) for _ in range(clients)))
    elapsed = time.perf_counter() - started
    milliseconds = np.array(latencies) * 1e3
    return Load(len(latencies) / elapsed, *np.percentile(milliseconds, [50, 99]).tolist(), sum(errors))


if __name__ == "__main__":
    load = asyncio.run(_generate(sys.argv[1], sys.stdin.buffer.read(), int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.buffer.write(orjson.dumps(load))
