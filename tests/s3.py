"""A real S3 server for tests: ``moto_server`` from an environment of its own (``pipx install 'moto[s3,server]'``).

Its dependencies do not go together with those of the service, so it is run as a program; without it tests are skipped.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

SERVER = os.environ.get("DEEPNIGHT_TEST_S3_SERVER") or shutil.which("moto_server")
BUCKET = "deepnight"
SECRET = "the-secret-access-key-of-a-test"
needed = pytest.mark.skipif(SERVER is None, reason="no moto_server: pipx install 'moto[s3,server]'")


class S3:
    """A server with one bucket behind a door that can be shut: what is in it lives in the server's memory."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [SERVER, "-p", str(self._port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        behind = f"http://127.0.0.1:{self._port}"
        for _ in range(400):
            try:
                urllib.request.urlopen(behind, timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        urllib.request.urlopen(urllib.request.Request(f"{behind}/{BUCKET}", method="PUT"), timeout=5).close()
        self._listener, self._connections = None, set()
        self._door = 0
        self.open()
        self.url = f"http://127.0.0.1:{self._door}"

    def environment(self):
        """What Arrow's client reads."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def open(self):
        """Let connections in, always at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._door))
        self._door = self._listener.getsockname()[1]
        threading.Thread(target=self._let_in, args=[self._listener], daemon=True).start()

    def shut(self):
        """Refuse connections, and end those that there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            _end(connection)

    def close(self):
        self.shut()
        self._process.terminate()
        self._process.wait()

    def _let_in(self, listener):
        while True:
            try:
                outside = listener.accept()[0]
            except OSError:
                return
            inside = socket.create_connection(("127.0.0.1", self._port))
            self._connections |= {outside, inside}
            for pair in ((outside, inside), (inside, outside)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for connection in (source, target):
            _end(connection)
            self._connections.discard(connection)


def _end(connection):
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
