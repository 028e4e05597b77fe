"""What people see: bars and tables on a terminal, plain lines when piped."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lightssl.errors import LightSSLError, LightSSLWarning
from lightssl.progress import Bar

# Piped, nothing is cut off to fit a terminal.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: LightSSLError) -> int:
    """Print an error and return the exit status that it asks for."""
    errors.print(Text.assemble(("Error: ", "bold red"), error.message))
    if error.hint:
        errors.print(Text(error.hint, style="dim"))
    return error.exit_status


def print_warnings() -> None:
    """Have warnings of ours printed as plain sentences from now on; those of other libraries stay as they are."""
    show = warnings.showwarning

    def print_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, LightSSLWarning):
            errors.print(Text.assemble(("Note: ", "bold yellow"), str(message)))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = print_warning


def print_json(value: Any) -> None:
    """Print a value for another program."""
    print(json.dumps(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


class Terminal:
    """Tells a person on the standard error stream, so that the standard output holds results only."""

    def __init__(self) -> None:
        self._bars: Progress | None = None  # on the terminal now

    def say(self, text: str) -> None:
        """Print one line."""
        errors.print(Text(text))

    @contextmanager
    def work(self, title: str, total: int) -> Iterator[Bar]:
        """Draw a progress bar, below those of work that this is a part of; when piped, print a line for each tenth."""
        if not errors.is_terminal:
            yield _PlainBar(title, total)
        elif self._bars is not None:
            with _bar(self._bars, title, total) as bar:
                yield bar
        else:
            with _bars() as self._bars, _bar(self._bars, title, total) as bar:
                try:
                    yield bar
                finally:
                    self._bars = None


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=errors,
    )


@contextmanager
def _bar(bars: Progress, title: str, total: int) -> Iterator[Bar]:
    task = bars.add_task(title, total=total, status="")
    yield lambda done, status="": bars.update(task, completed=done, status=status)
    if len(bars.tasks) > 1:  # a part that is done makes room for the next
        bars.remove_task(task)


class _PlainBar:
    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.tenth = title, total, 0

    def __call__(self, done: int, status: str = "") -> None:
        tenth = 10 * done // max(1, self.total)
        if tenth > self.tenth:
            self.tenth = tenth
            errors.print(Text(f"{self.title}: {10 * tenth} %  {status}".rstrip()))
