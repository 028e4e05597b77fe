import tarfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha512
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from lightssl.deploy import web_runtime
from lightssl.deploy.web_runtime import FILES, VERSION, runtime_files
from lightssl.errors import TargetError

CONTENT = {name: name.encode() * 100 for name in FILES}


def package() -> bytes:
    """As npm packs it."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {**CONTENT, "other.js": b"", "../../evil": b"evil"}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return packed.getvalue()


class Registry(HTTPServer):
    """Answers every request with the same bytes, and notes it."""

    def __init__(self, content: bytes) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = asked


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    content = package()
    monkeypatch.setattr(web_runtime, "INTEGRITY", f"sha512-{b64encode(sha512(content).digest()).decode()}")
    with Registry(content) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/npm/")
        monkeypatch.setenv("LIGHTSSL_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def test_it_is_fetched_once_and_kept(registry: Registry, tmp_path: Path) -> None:
    assert runtime_files() == runtime_files() == CONTENT
    assert registry.asked == [f"/npm/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(FILES)


def test_without_a_cache_it_is_fetched_each_time(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSSL_CACHE", "/dev/null")
    assert runtime_files() == runtime_files() == CONTENT
    assert len(registry.asked) == 2


def test_another_package_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{registry.server_port}")
    monkeypatch.setenv("LIGHTSSL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TargetError, match="its checksum is another"):
        runtime_files()
    assert not list(tmp_path.rglob("*.mjs"))


@pytest.mark.parametrize("registry_url", ["http://127.0.0.1:9", "nowhere", "http://127.0.0.1:port"])
def test_no_network(registry_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry_url)
    monkeypatch.setenv("LIGHTSSL_CACHE", str(tmp_path))
    with pytest.raises(TargetError, match="--set runtime=FOLDER"):
        runtime_files()


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert runtime_files(tmp_path) == CONTENT
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(TargetError, match=FILES[1]):
        runtime_files(tmp_path)
