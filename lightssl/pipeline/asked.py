"""The folder of a search, a sweep or a study: made when it is begun, and read when it is gone on with."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lightssl.errors import LightSSLError
from lightssl.files import alone
from lightssl.runs import DEFAULT_ROOT, new_run

Question = TypeVar("Question")


def new_folder(out: Path | str | None, name: str, section: str) -> Path:
    """Choose the folder of a new search or sweep, which keeps what it finds in a folder ``section`` there.

    Raises:
        LightSSLError: It holds one already.
    """
    folder = new_run(Path(out) if out is not None else None, f"{section}-{name}").folder
    if _file(folder, section).exists():
        raise LightSSLError(
            f"{folder} already holds a {section}.",
            f"Continue it with --resume {folder}, or choose another folder with --out.",
        )
    return folder


@contextmanager
def leading(folder: Path, section: str) -> Iterator[None]:
    """Lead the work in a folder: no other process does meanwhile. The lock goes when the process does.

    Raises:
        LightSSLError: Another one does, or the folder cannot be made or written.
    """
    busy = LightSSLError(
        f"Another process is at the {section} in {folder}.", f"Help it with --join {folder}, or stop it first."
    )
    with alone(folder / section / ".leading", otherwise=busy):
        yield


def find_folder(folder: Path | str | None, section: str) -> Path:
    """Return the folder that is named, or else the latest below ``runs/`` that holds a search, a sweep or a study.

    Raises:
        LightSSLError: None is named, and there is none.
    """
    if folder is not None:
        return Path(folder)
    found = [path.parents[1] for path in DEFAULT_ROOT.glob(f"*/{section}/{section}.json")]
    if not found:
        raise LightSSLError(f"There is no {section} below ./{DEFAULT_ROOT} yet.", "Name the folder of one.")
    return max(found, key=lambda one: _file(one, section).stat().st_mtime_ns)


def read_asked(run: Path | str, section: str, question: Callable[..., Question]) -> tuple[Question, dict[str, Any]]:
    """Read what a search or a sweep was asked: the question, and all of it.

    Raises:
        LightSSLError: There is none, or it cannot be read.
    """
    path = _file(Path(run), section)
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))["asked"]
        return question(**asked["question"]), asked
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LightSSLError(
            f"{run} holds no {section}: {path} cannot be read.", f"Name the folder of a {section}."
        ) from error


def _file(run: Path, section: str) -> Path:
    return run / section / f"{section}.json"
