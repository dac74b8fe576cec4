"""A data set of 2 GiB: what receiving it costs the gateway in memory."""

import tempfile
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.e2e.stack import Stack
from tests.resilience.parts import processes
from tests.resilience.trial import Trial

BYTES = (2 << 30) - (4 << 20)
PICTURE = 28 * 28
MOST_GROWTH = 300 << 20
LOOK_S = 0.02
TIMEOUT_S = 600


def two_gibibytes(size=BYTES):
    """Upload a file of the largest size that is taken; its pictures are read and stored like any other's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        _write(path, size // PICTURE)
        stack = Stack(Path(folder) / "home").start()
        try:
            stack.wait_ready()
            return _upload(stack, path)
        finally:
            stack.stop()
            assert stack.gone(10) == []


def _write(path, count):
    """Pictures of noise, a block at a time."""
    rng = np.random.default_rng(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 28, 28)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, count, 10_000):
                member.write(rng.integers(0, 256, (min(10_000, count - start), 28, 28), dtype=np.uint8).tobytes())
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, (np.arange(count) % 10).astype(np.uint8))


def _upload(stack, path):
    (gateway,) = processes(stack, "gateway")
    peaks, stop = {}, threading.Event()
    before = gateway.memory_info().rss
    watching = threading.Thread(target=_watch, args=(gateway, peaks, stop))
    watching.start()
    started = time.monotonic()
    try:
        with path.open("rb") as file:
            answer = httpx.post(f"{stack.base_url}/v1/datasets", files={"file": (path.name, file)}, timeout=TIMEOUT_S)
    finally:
        seconds = time.monotonic() - started
        stop.set()
        watching.join()
    growth = peaks["gateway"] - before
    size = path.stat().st_size
    broken = [] if answer.status_code == 201 else [f"answered {answer.status_code}: {answer.text[:300]}"]
    broken += [f"the gateway grew by {growth >> 20} MiB"] if growth > MOST_GROWTH else []
    measured = (
        f"gateway {before >> 20} MiB, at most {growth >> 20} MiB more; the parser's own process "
        f"{peaks['parser'] >> 20} MiB; {seconds:.0f} s, {size / seconds / 1e6:.0f} MB/s"
    )
    return Trial("2 GiB upload", f"an npz of {size / 2**30:.2f} GiB, {size // PICTURE:,} pictures", measured, broken)


def _watch(gateway, peaks, stop):
    """The most memory of the gateway and of what reads the file for it; pages of mapped files are not counted there."""
    peaks |= {"gateway": 0, "parser": 0}
    while not stop.wait(LOOK_S):
        peaks["gateway"] = max(peaks["gateway"], gateway.memory_info().rss)
        for child in gateway.children():
            try:
                if "models.core.datasets.ingest" in child.cmdline():
                    memory = child.memory_info()
                    peaks["parser"] = max(peaks["parser"], memory.rss - memory.shared)
            except psutil.NoSuchProcess:
                continue
