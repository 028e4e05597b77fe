"""The files of ONNX Runtime that a browser runs: fetched once from the npm registry, checked, and kept."""

import os
import tarfile
import urllib.request
from base64 import b64encode
from contextlib import suppress
from hashlib import sha512
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from lightssl.errors import LightSSLError, TargetError
from lightssl.files import atomic_path, cache_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# As `npm view onnxruntime-web@1.30.0 dist.integrity` tells it.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

_MAX_BYTES = 64 * 2**20  # of the package, which is 32 MiB
_TIMEOUT = 60  # seconds without a byte


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """Return the contents of :data:`FILES`.

    They are taken from the cache, or else from the package in the npm registry, and then kept in the cache. npm's own
    variable ``NPM_CONFIG_REGISTRY`` names another registry; the package must be the same to the bit.

    Args:
        folder: Holds the files, of any version; then nothing is fetched and nothing checked.

    Raises:
        TargetError: ``folder`` lacks one of them; or the package cannot be fetched, or is not the one expected.
    """
    if folder is not None:
        try:
            return _read(folder)
        except OSError as error:
            raise TargetError(
                f"Cannot read {error.filename}: {error.strerror}.",
                f"The folder must hold {', '.join(FILES)}: those in dist/ of the npm package {PACKAGE}.",
            ) from error
    cache = cache_folder()
    kept = cache / f"{PACKAGE}-{VERSION}" if cache else None
    if kept:
        with suppress(OSError):
            return _read(kept)
    files = _unpack(_fetch())
    if kept:
        with suppress(LightSSLError):  # where nothing can be written, it is fetched each time
            for name, content in files.items():
                with atomic_path(kept / name) as aside:
                    aside.write_bytes(content)
    return files


def _read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def _fetch() -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    url = f"{registry.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    hint = f"Fetch {PACKAGE} {VERSION} elsewhere, and name its folder dist/ with --set runtime=FOLDER."
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            package: bytes = response.read(_MAX_BYTES)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: what is in the variable is not a URL
        raise TargetError(f"Cannot fetch {url}: {error}.", hint) from error
    if f"sha512-{b64encode(sha512(package).digest()).decode()}" != INTEGRITY:
        raise TargetError(f"What {url} holds is not {PACKAGE} {VERSION}: its checksum is another.", hint)
    return package


def _unpack(package: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=BytesIO(package), mode="r:gz") as archive:
        for name in FILES:
            # The checksum says that they are there.
            files[name] = cast(IO[bytes], archive.extractfile(f"package/dist/{name}")).read()
    return files
