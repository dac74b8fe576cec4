"""Redis servers for tests: with TLS, and a master with its replica and Sentinels. Each is a real process."""

import datetime
import ipaddress
import re
import shutil
import signal
import socket
import subprocess
import time
from functools import cache

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from workers.valkey import server_binary

SECRET, WATCH_SECRET = "the-password", "the-sentinels-password"
SERVICE = "deepnight"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server with a configuration file of its own, which a Sentinel rewrites."""

    def __init__(self, folder, port, lines, *arguments, binary=None):
        self.port = port
        self._folder = folder / str(port)
        self._folder.mkdir()
        self._command = [str(binary or server_binary()), str(self._folder / "server.conf"), *arguments]
        text = [f"dir {self._folder}", f"logfile {self._folder / 'server.log'}", *lines]
        (self._folder / "server.conf").write_text("\n".join(text) + "\n")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self._listens():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.02)
        return self

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self):
        path = self._folder / "server.log"
        return path.read_text()[-3000:] if path.exists() else "no log"

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Watched:
    """A master, a replica and three Sentinels that agree on a failover within two seconds or so.

    Attributes:
        url: of the settings.
    """

    def __init__(self, folder, *lines):
        ports = [free_port() for _ in range(5)]
        common = [
            "appendonly yes", "appendfsync always", 'save ""', "maxmemory-policy noeviction", "bind 127.0.0.1",
            f"requirepass {SECRET}", f"masterauth {SECRET}", "repl-diskless-sync-delay 0", *lines,
        ]  # fmt: skip
        self.servers = {port: Server(folder, port, [f"port {port}", *common]) for port in ports[:2]}
        first, second = self.servers.values()
        first.start()
        second.start()
        self.client(second.port).replicaof("127.0.0.1", first.port)
        watching = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} 2",
            f"sentinel auth-pass {SERVICE} {SECRET}",
            f"sentinel down-after-milliseconds {SERVICE} 3000",
            f"sentinel failover-timeout {SERVICE} 6000",
            f"requirepass {WATCH_SECRET}",
            f"sentinel sentinel-pass {WATCH_SECRET}",
        ]
        self.sentinels = [
            Server(folder, port, [f"port {port}", "bind 127.0.0.1", *watching], "--sentinel").start()
            for port in ports[2:]
        ]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[2:])
        self.url = f"redis+sentinel://:{SECRET}@{hosts}/{SERVICE}/0?sentinel_password={WATCH_SECRET}"
        self._until(self._watched, "Sentinels that know each other and the replica")

    def client(self, port, password=SECRET):
        return redis.Redis(port=port, password=password, decode_responses=True, socket_timeout=2)

    def master(self):
        """The port of the master by the first Sentinel."""
        return int(self._ask("get-master-addr-by-name")[1])

    def replica(self):
        """The port of the other server."""
        return next(port for port in self.servers if port != self.master())

    def fail_over(self):
        """Have the Sentinels make the replica the master; wait until the old one is its replica."""
        old = self.master()
        self._ask("failover")
        self._until(lambda: self.master() != old, "another master")
        self._until(lambda: self.client(old).info("replication")["role"] == "slave", "a replica of what was the master")

    def in_step(self):
        """Wait until the master has a replica that has everything."""
        self._until(lambda: self.client(self.master()).wait(1, 1000) == 1, "a replica in step")

    def close(self):
        for server in [*self.sentinels, *self.servers.values()]:
            print(f"--- {server.port}\n{server.log()}")  # shown where the test failed
            server.kill()

    def _watched(self):
        for sentinel in self.sentinels:
            state = self.client(sentinel.port, WATCH_SECRET).execute_command("SENTINEL", "MASTER", SERVICE)
            if int(state["num-other-sentinels"]) != 2 or int(state["num-slaves"]) != 1:
                return False
        return self.client(self.master()).info("replication")["connected_slaves"] == 1

    def _ask(self, what):
        client = redis.Redis(port=self.sentinels[0].port, password=WATCH_SECRET, decode_responses=True)
        return client.execute_command("SENTINEL", what, SERVICE)

    def _until(self, condition, what, seconds=30):
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"no {what}\n{self.sentinels[0].log()}"
            time.sleep(0.1)


@cache
def tls_binary():
    """A server program that was built with TLS, or None; the packaged Valkey was not."""
    for path in filter(None, map(shutil.which, ("valkey-server", "redis-server"))):
        asked = subprocess.run(
            [path, "-"], input="port 0\ntls-port 1\n", text=True, capture_output=True, timeout=10, check=False
        )
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        if "No tls-" in asked.stdout + asked.stderr and int(re.search(r"v=(\d+)", version)[1]) >= 7:
            return path
    return None


class Authority:
    """A certificate authority of a test and what it signed, as PEM files in ``folder``."""

    def __init__(self, folder, name):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name):
        """Paths of a certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = self._sign(subject, key, names)
        paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths[1].chmod(0o600)
        return paths

    def _sign(self, subject, key, extension):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def encrypted(folder, authority, binary):
    """A server that speaks TLS only, to clients with a certificate of ``authority``."""
    port = free_port()
    lines = [
        *_tls(authority, port, "server"),
        f"requirepass {SECRET}",
        "appendonly yes",
        "appendfsync always",
        'save ""',
    ]
    return Server(folder, port, lines, binary=binary).start()


def encrypted_sentinel(folder, authority, binary, server):
    """A Sentinel that speaks TLS only, with clients and with ``server``."""
    port = free_port()
    watching = [
        f"sentinel monitor {SERVICE} 127.0.0.1 {server.port} 1",
        f"sentinel auth-pass {SERVICE} {SECRET}",
        "tls-replication yes",
    ]
    return Server(folder, port, [*_tls(authority, port, "sentinel"), *watching], "--sentinel", binary=binary).start()


def _tls(authority, port, name):
    certificate, key = authority.issue(name)
    return [
        "port 0",
        f"tls-port {port}",
        "bind 127.0.0.1",
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        f"tls-ca-cert-file {authority.file}",
        "tls-auth-clients yes",
    ]
