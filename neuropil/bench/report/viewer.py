"""A server for one person: pages of one directory, on loopback only, read-only, behind an address nobody can guess."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
HEADERS = {
    # A page may be of a directory that somebody else made: it runs, and can neither send nor be framed.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Viewer(ThreadingHTTPServer):
    """Serves the pages below `root`; `address` is where, with a token that requests must know.

    A request is answered when it names this very host (a page of another site whose name was made to point here does
    not), knows the token, and asks to read a page, script or style that lies inside `root` after links are followed.

    >>> import tempfile
    >>> with Viewer(Path(tempfile.mkdtemp())) as viewer:
    ...     viewer.address.startswith("http://127.0.0.1:")
    True
    """

    daemon_threads = True

    def __init__(self, root: Path, *, port: int = 0, index: str = "index.html") -> None:
        self.root, self.index, self.token = root.resolve(), index, secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), _Request)

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser that was given `address` calls this host."""
        return frozenset(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    @property
    def address(self) -> str:
        """Where the first page is."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/{self.index}"

    def file(self, target: str) -> Path | None:
        """The file that a request for `target` may read, or None."""
        token, _, name = unquote(urlsplit(target).path).removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        if "\0" in name or "\\" in name or any(part.startswith(".") for part in name.split("/")):
            return None
        try:
            path = (self.root / (name or self.index)).resolve()
            inside = path.is_relative_to(self.root) and path.suffix in TYPES
            return path if inside and path.is_file() else None
        except (OSError, RuntimeError):  # a name too long, links in a circle
            return None


class _Request(BaseHTTPRequestHandler):
    server: Viewer
    server_version, sys_version = "neuropil", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self.send_error(HTTPStatus.FORBIDDEN, "this address is not ours")
            return
        path = self.server.file(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = path.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[path.suffix])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Every answer, an error too, says what its page may do."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the token is in every line that would be logged."""
