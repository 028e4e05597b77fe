"""A small HTTP server that hands one page to a browser and takes its report. It serves from memory, never from disk."""

import hmac
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from tempfile import TemporaryDirectory
from typing import Any

from lightssl.errors import TargetError

REPORT = "/report"
MAX_BODY = 4 * 2**20  # of a report, which is tens of kilobytes a number of threads
_SOCKET_TIMEOUT = 30  # seconds that a connection may stand still
_CERTIFICATE_DAYS = 30

# Browsers refuse a module of another type, and start to compile WebAssembly of this type while it arrives.
_TYPES = {
    "": "text/html; charset=utf-8",  # the page, which is /
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # The first two isolate the page, without which there are no threads in it; the third goes with them.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
        "worker-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class Site:
    """What is served below ``/TOKEN``; nothing else is.

    Args:
        token: The secret that the address holds.
        files: Paths, such as ``/page.js``, and contents. ``/`` is the page itself.
        receive: Is given the body of a POST to ``/report`` and its user agent, and returns whether it was the last one;
            raises ValueError if it will not have it.
    """

    token: str
    files: Mapping[str, bytes]
    receive: Callable[[bytes, str], bool]
    was_opened: bool = False
    last_seen: float = field(default_factory=time.monotonic)  # when somebody with the token last asked for something
    finished: threading.Event = field(default_factory=threading.Event)

    def wait(self, patience: float) -> bool:
        """Wait for the last report; False if nothing at all is heard for ``patience`` seconds."""
        while not self.finished.wait(max(0, self.last_seen + patience - time.monotonic())):
            if time.monotonic() >= self.last_seen + patience:
                return False
        return True


@contextmanager
def serving(site: Site, *, lan: bool, https: bool, port: int) -> Iterator[str]:
    """Serve ``site`` while the block runs; gives its address.

    Args:
        site: What to serve.
        lan: Be reachable from the network, not only from this machine.
        https: With a self-signed certificate, made on the spot.
        port: 0 takes one that is free.

    Raises:
        TargetError: The port is taken, there is no network, or no certificate can be made.
    """
    host = _lan_address() if lan else "127.0.0.1"
    try:
        server = _Server(("" if lan else host, port), type("Handler", (_Handler,), {"site": site}))
    except OSError as error:
        raise TargetError(
            f"Cannot serve on port {port}: {error.strerror}.", "Take another with --set port=N."
        ) from error
    with server:
        if https:
            # The handshake is left to the thread of the connection, so that a slow one holds up nobody else.
            server.socket = _certified(host).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        try:
            yield f"http{'s' if https else ''}://{host}:{server.server_address[1]}/{site.token}/"
        finally:
            server.shutdown()


class _Server(ThreadingTCPServer):  # not the HTTPServer, which asks the network for this machine's name
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a connection that drops, or a refused certificate, concerns its own thread alone."""


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"
    server_version = "lightssl"
    sys_version = ""
    timeout = _SOCKET_TIMEOUT

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if path in self.site.files:
            self._answer(HTTPStatus.OK, self.site.files[path], _TYPES.get(Path(path).suffix))
        else:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED if path == REPORT else HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        # The body of what is refused is not read: the connection ends, or it would pass for the next request.
        self.close_connection = True
        path, length = self._path(), self.headers.get("Content-Length", "")
        if path is None:
            return
        if path != REPORT:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED if path in self.site.files else HTTPStatus.NOT_FOUND)
        elif not re.fullmatch(r"[0-9]{1,12}", length):
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BODY:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):  # else the connection has dropped
                self._receive(body)

    def _receive(self, body: bytes) -> None:
        try:
            was_last = self.site.receive(body, self.headers.get("User-Agent", ""))
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        self.close_connection = False
        self._answer(HTTPStatus.NO_CONTENT)
        if was_last:  # answered first: the program may end now
            self.site.finished.set()

    def _refuse(self) -> None:
        self.close_connection = True
        if self._path() is not None:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED)

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse  # noqa: N815

    def _path(self) -> str | None:
        """Return the path below the token; None, having refused, if the token is missing or wrong."""
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.site.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN)
            return None
        self.site.last_seen = time.monotonic()
        self.site.was_opened = True
        return slash + name

    def _answer(self, status: HTTPStatus, content: bytes = b"", kind: str | None = None) -> None:
        self.send_response(status)
        for key, value in _HEADERS.items():
            self.send_header(key, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def _lan_address() -> str:
    """This machine's address in the network. Nothing is sent: connecting a UDP socket only picks a route."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address reserved for documentation
        address: str = probe.getsockname()[0]
        return address
    raise TargetError("This machine is in no network that a phone could reach it by.", "Leave out --lan.")


def _certified(host: str) -> ssl.SSLContext:
    """Make a key and a certificate that it signs itself, valid for one address."""
    with TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-days", str(_CERTIFICATE_DAYS), "-subj", "/CN=lightssl", "-keyout", str(key)]
        command += ["-addext", f"subjectAltName=IP:{host}", "-addext", "extendedKeyUsage=serverAuth"]
        try:
            subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise TargetError(
                "Cannot make a certificate with openssl.", "Install openssl, or leave out --https."
            ) from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    return context
