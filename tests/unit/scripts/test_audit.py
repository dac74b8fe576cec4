"""The audit against an OSV service on loopback: silence is not an all-clear."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CANARY = {("django", "3.2")}


def advisory(name):
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}]
    return {"id": f"TEST-{name}", "affected": [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]}


@pytest.fixture
def audit(tmp_path):
    """Run the script on two packages against a service that knows advisories of the given releases."""
    lock = tmp_path / "some.lock"
    lock.write_text("# a comment\nfirst-package==1.0\nsecond-package==2.0\n")
    servers = []

    def run(vulnerable):
        class Osv(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = query["package"]["name"]
                body = json.dumps(
                    {"vulns": [advisory(name)]} if (name, query["version"]) in vulnerable else {}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return script(lock, f"http://127.0.0.1:{server.server_port}/v1/query")

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def script(lock, url):
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(lock)]
    environment = {**os.environ, "PIP_AUDIT_OSV_URL": url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_known_vulnerability_is_named_with_its_fix(audit):
    done = audit(CANARY | {("second-package", "2.0")})
    assert done.returncode == 1
    assert "second-package 2.0: TEST-second-package, fixed in 9.9" in done.stdout
    assert "first-package" not in done.stdout


def test_another_release_of_the_same_package_is_none(audit):
    done = audit(CANARY | {("second-package", "1.9")})
    assert (done.returncode, done.stdout) == (0, "osv: answered for 2 of 2 packages, no known vulnerability\n")


def test_a_service_that_knows_no_advisories_is_no_all_clear(audit):
    done = audit(set())
    assert done.returncode == 3
    assert "NOTHING WAS AUDITED" in done.stdout


def test_no_service_is_no_all_clear(tmp_path):
    (lock := tmp_path / "some.lock").write_text("first-package==1.0\n")
    done = script(lock, "http://127.0.0.1:9/v1/query")
    assert done.returncode == 3
    assert "no answer" in done.stdout
    assert "NOTHING WAS AUDITED" in done.stdout


def test_packages_that_a_service_passes_over_are_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import audit

    known = [{"name": "django", "version": "3.2", "vulns": [{"id": "X", "fix_versions": []}]}]
    known += [{"name": "first", "version": "1", "vulns": []}, {"name": "torch", "skip_reason": "not found"}]
    assert audit.verdict("pypi", known) == (3, ["pypi: answered for 1 of 2 packages. NOT AUDITED: torch"])
