"""``lightssl evaluate``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import Terminal, console, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("lightssl evaluate", "lightssl evaluate --task knn --json", "lightssl evaluate --task linear")
    )(evaluate)


def evaluate(
    run: Annotated[Optional[Path], typer.Argument(help="Folder of a run.", show_default="the latest")] = None,
    task: Annotated[
        Optional[list[str]], typer.Option(help="knn or linear; repeat for more.", show_default="both")
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option(help="Labelled images: first-level folder names are labels.", show_default="the run's"),
    ] = None,
    test_data: Annotated[
        Optional[str],
        typer.Option(help="Labelled test images, if they lie elsewhere.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure frozen features, beside the same network at random initialisation."""
    from lightssl import pipeline

    written = pipeline.evaluate(
        run, tasks=task or ("knn", "linear"), data=data, test_data=test_data, narrator=Terminal()
    )
    if json:
        print_json(written)
        return
    first = next(iter(written.values()))
    rows = [
        [first["results"][i]["network"], *(f"{result['results'][i]['top1']:.1f} %" for result in written.values())]
        for i in range(len(first["results"]))
    ]
    print_table("Top-1 accuracy on the test images", ["network", *written], rows)
    console.print(first["data"]["split"])
