"""``lightssl report``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("lightssl report", "lightssl report --out page.html"))(report)


def report(
    run: Annotated[Optional[Path], typer.Argument(help="Folder of a run.", show_default="the latest")] = None,
    out: Annotated[Optional[Path], typer.Option(help="The page.", show_default="report.html in the run")] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from lightssl import pipeline

    console.print(str(pipeline.report(run, out=out)))
