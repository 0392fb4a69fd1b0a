"""`neuropil serve` over a real socket: what it shows, and what it refuses to whom."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from neuropil.bench.report.viewer import LOOPBACK, Viewer
from neuropil.cli.serve import pages
from neuropil.errors import ConfigError


@pytest.fixture
def root(tmp_path):
    site = tmp_path / "site"
    (site / "systems").mkdir(parents=True)
    (site / "index.html").write_text("<p>first</p>")
    (site / "systems" / "a b.html").write_text("<p>second</p>")
    (site / "assets.js").write_text("let x;")
    (site / "run.json").write_text("{}")
    (site / ".hidden.html").write_text("hidden")
    (tmp_path / "secret.html").write_text("secret")
    (site / "link.html").symlink_to(tmp_path / "secret.html")
    return site


@pytest.fixture
def viewer(root):
    with Viewer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(viewer, path, *, method="GET", host=None):
    """Status, headers and body of an answer to a path that is sent as it is written."""
    connection = http.client.HTTPConnection(LOOPBACK, viewer.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name in [f"{LOOPBACK}:{viewer.server_port}"] if host is None else host:
        connection.putheader("Host", name)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_the_address_shows_the_first_page(viewer):
    path = urlsplit(viewer.address).path
    status, headers, body = asked(viewer, path)
    assert (status, body) == (200, "<p>first</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"  # the token must not leave with a link
    assert asked(viewer, f"/{viewer.token}/systems/a%20b.html?x#y")[2] == "<p>second</p>"
    assert asked(viewer, f"/{viewer.token}/")[0] == 200
    assert asked(viewer, f"/{viewer.token}/assets.js")[0] == 200


def test_only_loopback_listens(viewer):
    assert viewer.socket.getsockname()[0] == LOOPBACK
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        with pytest.raises(OSError):
            socket.create_connection((own, viewer.server_port), timeout=2).close()


@pytest.mark.parametrize("path", ["/", "/index.html", "/wrong/index.html", "//index.html", "/é/index.html"])
def test_without_the_token_there_is_nothing(viewer, path):
    status, _, body = asked(viewer, path.replace("é", "%C3%A9"))
    assert status == 404
    assert viewer.token not in body
    assert "first" not in body


def test_tokens_differ_and_are_long(root):
    with Viewer(root) as one, Viewer(root) as other:
        assert one.token != other.token
        assert len(one.token) >= 32


@pytest.mark.parametrize(
    "host",
    [["evil.example"], ["evil.example:{port}"], [], ["127.0.0.1"], ["127.0.0.1:1"], ["127.0.0.1:{port}"] * 2],
)
def test_another_host_is_refused(viewer, host):
    named = [name.format(port=viewer.server_port) for name in host]
    assert asked(viewer, urlsplit(viewer.address).path, host=named)[0] == 403


def test_localhost_is_this_host(viewer):
    assert asked(viewer, f"/{viewer.token}/index.html", host=[f"localhost:{viewer.server_port}"])[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.html",
        "%2e%2e/secret.html",
        "..%2fsecret.html",
        "systems/../../secret.html",
        "systems/%2e%2e/%2e%2e/secret.html",
        "..\\secret.html",
        "%00.html",
        "link.html",
        ".hidden.html",
        "run.json",
        "systems",
        "systems/",
        "/etc/passwd",
        "a" * 5000 + ".html",
    ],
)
def test_what_lies_outside_or_is_no_page_is_not_there(viewer, path):
    status, _, body = asked(viewer, f"/{viewer.token}/{path}")
    assert status == 404
    assert "secret" not in body


def test_absolute_paths_stay_inside(viewer, tmp_path):
    assert asked(viewer, f"/{viewer.token}/{tmp_path}/secret.html")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(viewer, root, method):
    before = sorted(path.name for path in root.rglob("*"))
    status, headers, _ = asked(viewer, f"/{viewer.token}/index.html", method=method)
    assert status == 501
    assert "Access-Control-Allow-Origin" not in headers
    assert sorted(path.name for path in root.rglob("*")) == before


def test_head_has_no_body(viewer):
    status, headers, body = asked(viewer, f"/{viewer.token}/index.html", method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, "", "12")


def test_pages_are_found(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pages(None) == (Path("site"), "index.html")
    assert pages(root / "systems" / "a b.html") == (root / "systems", "a b.html")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ConfigError, match="neuropil report"):
        pages(run)
    (run / "report.html").write_text("<p>report</p>")
    assert pages(run) == (run, "report.html")


def test_the_command_serves_until_interrupted(root):
    command = [sys.executable, "-m", "neuropil", "serve", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = urlsplit(process.stdout.readline().strip())
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", address.path)
        assert connection.getresponse().read() == b"<p>first</p>"
        connection.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == "Ctrl-C ends it\n"


def test_a_port_in_use_is_told_in_one_line(root, viewer):
    port = str(viewer.server_port)
    command = [sys.executable, "-m", "neuropil", "serve", str(root), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"neuropil: --port {port}: Address already in use; give another, or none\n"
