import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from shutil import which
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from lightssl.deploy.web_server import MAX_BODY, Site, serving
from lightssl.errors import TargetError

FILES = {"/": b"page", "/page.js": b"js", "/ort.mjs": b"mjs", "/ort.wasm": b"wasm", "/input.bin": b"bin"}


class Served(NamedTuple):
    port: int
    received: list[tuple[bytes, str]]
    site: Site


@pytest.fixture
def served() -> Iterator[Served]:
    received: list[tuple[bytes, str]] = []

    def receive(body: bytes, user_agent: str) -> bool:
        if not body.startswith(b"{"):
            raise ValueError
        received.append((body, user_agent))
        return body == b"{last}"

    site = Site("secret", FILES, receive)
    with serving(site, lan=False, https=False, port=0) as address:
        parts = urlsplit(address)
        assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/secret/")
        assert parts.port
        yield Served(parts.port, received, site)


def ask(served: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?again", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/ort.mjs", "text/javascript; charset=utf-8"),
        ("/ort.wasm", "application/wasm"),
        ("/input.bin", "application/octet-stream"),
    ],
)
def test_files_come_isolated_and_with_their_type(path: str, kind: str, served: Served) -> None:
    connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
    for _ in range(2):  # the connection stays usable
        connection.request("GET", f"/secret{path}")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, FILES[path.partition("?")[0]])
        assert response.headers["Content-Type"] == kind
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/report", "/Secret/page.js", "/secret2/report", "/x/secret/", "/sécret/"]
)
def test_nothing_is_had_without_the_token(path: str, served: Served) -> None:
    path = path.encode().decode("latin-1")
    for method, body in (("GET", None), ("POST", b"{}"), ("PUT", b"{}")):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
            raw.sendall(f"{method} {path} HTTP/1.0\r\nContent-Length: {len(body or b'')}\r\n\r\n".encode("latin-1"))
            assert raw.recv(100).split()[1] == b"403"
    assert not served.received
    assert not served.site.was_opened


@pytest.mark.parametrize(
    "path",
    ["/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.js/", "/..\\x", "/page.js/../x", ""],
)
def test_no_path_leads_out_of_the_folder(path: str, served: Served) -> None:
    assert ask(served, "GET", f"/secret{path}") == (404, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/report"), ("POST", "/"), ("POST", "/page.js"), ("PUT", "/report"), ("DELETE", "/"), ("HEAD", "/")],
)
def test_a_wrong_method_is_refused(method: str, path: str, served: Served) -> None:
    assert ask(served, method, f"/secret{path}", b"{}") == (405, b"")
    assert not served.received


def test_a_report_reaches_its_receiver(served: Served) -> None:
    headers = {"User-Agent": "Phone"}
    assert ask(served, "POST", "/secret/report", b"{first}", **headers) == (204, b"")
    assert not served.site.finished.is_set()
    assert ask(served, "POST", "/secret/report", b"{last}", **headers) == (204, b"")
    assert served.site.wait(10)
    assert served.received == [(b"{first}", "Phone"), (b"{last}", "Phone")]


@pytest.mark.parametrize(("length", "status"), [(str(MAX_BODY + 1), 413), ("9" * 30, 411), ("-1", 411), ("", 411)])
def test_bodies_are_bounded(length: str, status: int, served: Served) -> None:
    header = f"Content-Length: {length}\r\n" if length else ""
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
        raw.sendall(f"POST /secret/report HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        assert int(raw.recv(100).split()[1]) == status
    assert not served.received


def test_a_body_that_is_no_report_is_refused(served: Served) -> None:
    assert ask(served, "POST", "/secret/report", b"hello")[0] == 400


def test_a_connection_that_drops_in_the_middle_leaves_nothing_and_harms_nobody(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
        raw.sendall(b"POST /secret/report HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{half of it")
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100) == b""
    assert not served.received
    assert ask(served, "POST", "/secret/report", b"{whole}")[0] == 204
    assert capfd.readouterr().err == ""


def test_waiting_ends_with_silence(served: Served) -> None:
    assert not served.site.wait(0.05)


def test_only_lan_is_reachable_from_the_network() -> None:
    site = Site("secret", FILES, lambda body, user_agent: True)
    try:
        with serving(site, lan=True, https=False, port=0) as address:
            outside = urlsplit(address)
            assert outside.hostname
            assert outside.port
            connection = HTTPConnection(outside.hostname, outside.port, timeout=10)
            connection.request("GET", "/secret/")
            assert connection.getresponse().status == 200
    except TargetError as error:
        pytest.skip(error.message)
    if outside.hostname.startswith("127."):
        pytest.skip("this machine has only itself")
    with serving(site, lan=False, https=False, port=0) as address, pytest.raises(OSError, match="refused"):
        socket.create_connection((outside.hostname, urlsplit(address).port or 0), timeout=10)


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_the_certificate_is_valid_for_the_address() -> None:
    with serving(Site("secret", FILES, lambda body, user_agent: True), lan=False, https=True, port=0) as address:
        parts = urlsplit(address)
        assert parts.scheme == "https"
        assert parts.port
        # Whoever connects without a handshake holds up nobody.
        with socket.create_connection(("127.0.0.1", parts.port), timeout=10):
            certificate = ssl.get_server_certificate(("127.0.0.1", parts.port), timeout=10)
            trust = ssl.create_default_context(cadata=certificate)
            connection = HTTPSConnection("127.0.0.1", parts.port, timeout=10, context=trust)
            connection.request("GET", "/secret/")
            assert connection.getresponse().read() == b"page"


def test_a_missing_openssl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    site = Site("secret", FILES, lambda body, user_agent: True)
    with pytest.raises(TargetError, match="Install openssl"), serving(site, lan=False, https=True, port=0):
        pass


def test_a_port_that_is_taken(served: Served) -> None:
    with (
        pytest.raises(TargetError, match=f"port {served.port}"),
        serving(served.site, lan=False, https=False, port=served.port),
    ):
        pass
