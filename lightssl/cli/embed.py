"""``lightssl embed``."""

from pathlib import Path
from typing import Annotated

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import DataOption, JSONOption, RunArgument
from lightssl.cli.terminal import Terminal, console, print_json

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl embed --data photos/",
            "lightssl embed --data photos/ --out features.npz --json",
        )
    )(embed)


def embed(
    run: RunArgument = None,
    data: DataOption = "sample",
    out: Annotated[Path, typer.Option(help="A .parquet or .npz file.")] = Path("features.parquet"),
    json: JSONOption = False,
) -> None:
    """Write the features of images, with their paths and labels, to a file that other programs read.

    What was stopped goes on where it was when the same command is given again.
    """
    from lightssl import pipeline

    result = pipeline.embed(run, data=data, out=out, narrator=Terminal())
    if json:
        print_json(result)
        return
    console.print(f"{result['out']}: {result['images']:,} images, {result['width']:,} features each", markup=False)
    if result["skipped"]:
        console.print(f"{len(result['skipped']):,} images could not be used:", markup=False)
        for bad in result["skipped"][:_SHOWN]:
            console.print(f"  {bad['name']}: {bad['reason']}", markup=False)
