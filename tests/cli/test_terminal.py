"""Bars of work and of its parts."""

from io import StringIO

import pytest
from rich.console import Console

from lightssl.cli import terminal
from lightssl.cli.terminal import Terminal


def test_parts_of_work_have_a_bar_below_it_while_they_last(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=written, force_terminal=True, width=120))
    narrator = Terminal()
    with narrator.work("Whole", 2) as whole:
        for part in (1, 2):
            with narrator.work(f"Part {part}", 4) as bar:
                bar(3, "at its third")
            assert narrator._bars is not None
            assert [task.description for task in narrator._bars.tasks] == ["Whole"]
            whole(part)
    assert narrator._bars is None
    assert "Part 2" in written.getvalue()
    with narrator.work("Another", 1) as bar:  # the terminal is free again
        bar(1)
    assert "Another" in written.getvalue()
