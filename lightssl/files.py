"""Writing files so that nothing is ever left half-written: aside first, then renamed into place."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightssl.errors import LightSSLError

_LEAVING_S = 10.0  # that what a killed process has started may take to end, which holds its locks until then


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; rename it onto ``path`` when the block ends well.

    When the block raises, what it wrote is removed and ``path`` stays as it was.

    Raises:
        LightSSLError: The disk is full, or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise LightSSLError(
            f"Cannot write {path}: {error.strerror or error}.", "Free some space, or choose another folder with --out."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def make_folder(path: Path) -> Path:
    """Make a folder unless it is there.

    Raises:
        LightSSLError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LightSSLError(
            f"Cannot make the folder {path}: {error.strerror or error}.", "Choose another one with --out."
        ) from error
    return path


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold a lock, a file, that one process has at a time, and that goes with the process.

    Args:
        path: Of the file, in a folder that is there.
        timeout: Seconds to wait for another process; for ever if negative.

    Raises:
        Timeout: Another process has it (``filelock.Timeout``).
        LightSSLError: The folder cannot be written.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:  # which is an OSError as well
        raise
    except OSError as error:
        raise LightSSLError(
            f"Cannot write {path}: {error.strerror or error}.", "Free some space, or see who may write there."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(lock: Path, otherwise: LightSSLError) -> Iterator[None]:
    """Do what one process does at a time.

    Args:
        lock: File of the lock, whose folder is made.
        otherwise: What is raised where another process is at it.

    Raises:
        LightSSLError: ``otherwise``, or the folder cannot be made or written.
    """
    make_folder(lock.parent)
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock, timeout=_LEAVING_S))
        except Timeout as error:
            raise otherwise from error
        yield


def cache_folder() -> Path | None:
    """Where things are kept that can be had again: ``$LIGHTSSL_CACHE``, else the user's cache folder.

    None where there is no home to keep it in. It may not be there yet, and nothing may be writable in it.
    """
    cache = os.environ.get("LIGHTSSL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lightssl"
    with suppress(RuntimeError):
        return Path(cache).expanduser()
    return None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one piece, indented for people."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object from each line; lines that a kill cut short are left out. Empty if there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def append_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append one line for each object; a line that a kill cut short stays a line of its own.

    Raises:
        LightSSLError: The disk is full, or the file cannot be written.
    """
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    except OSError as error:
        raise LightSSLError(f"Cannot write {path}: {error.strerror or error}.", "Free some space.") from error
