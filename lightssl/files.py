"""Writing files so that nothing is ever left half-written: aside first, then renamed into place."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightssl.errors import LightSSLError


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


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one piece, indented for people."""
    write_text(path, json.dumps(value, indent=2) + "\n")
