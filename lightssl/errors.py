"""The errors that a user can cause or meet.

Every one is a :class:`LightSSLError`. The command line prints its message without a traceback and leaves with its
``exit_status``: 1 when something failed, 2 when the call itself was wrong. A message says what was wrong and where; the
hint says what to do about it. What does not stop the work is a :class:`LightSSLWarning`, which it prints as a sentence.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class LightSSLError(Exception):
    """Something went wrong that the user can understand and mend.

    Args:
        message: What was wrong, and where.
        hint: What to do about it.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        # Worker processes send their errors pickled; the default would drop the hint.
        return type(self), (self.message, self.hint)


class LightSSLWarning(UserWarning):
    """Something is not as it was asked for, and the work goes on without it."""


class ConfigError(LightSSLError):
    """A recipe, an override or an option is wrong. Holds every problem found, not only the first.

    Args:
        message: What was being read.
        problems: One line each, with the path of the key.
        hint: What to do about it.
    """

    exit_status = 2

    def __init__(self, message: str, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {problem}" for problem in problems)]), hint)
        self.problems = list(problems)

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.message, self.hint)


class DataError(LightSSLError):
    """Images or labels are missing, unreadable or do not fit what was asked."""


class CheckpointError(LightSSLError):
    """A checkpoint or weights file is missing, damaged, unsafe or belongs to something else."""


class TrainingError(LightSSLError):
    """Training cannot go on: a loss that is not finite, a batch that does not fit the data."""


class ExportError(LightSSLError):
    """A network could not be exported, or the exported one does not compute the same."""


class TargetError(LightSSLError):
    """A device target could not run or time a model."""


def problems_of(error: "ValidationError") -> list[str]:
    """Return one line for each thing that pydantic finds wrong, with its place."""
    return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
