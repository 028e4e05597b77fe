"""``lightssl verify``."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import JSONOption
from lightssl.cli.terminal import Terminal, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl verify",
            "lightssl verify --arch aarch64",
            "lightssl verify --json",
        )
    )(verify)


def verify(
    models: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="MODEL", help="ONNX files of one run, or its folder.", show_default="all of the run"),
    ] = None,
    run: Annotated[
        Optional[Path],
        typer.Option(
            help="The run they were exported from.", show_default="the one they lie in, or without files the latest"
        ),
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option(help="Labelled images: first-level folder names are labels.", show_default="the run's"),
    ] = None,
    arch: Annotated[
        Optional[str],
        typer.Option(
            help="aarch64: compute the files as ARM processors do, emulated by qemu, on fewer images.",
            show_default="this machine's",
        ),
    ] = None,
    json: JSONOption = False,
) -> None:
    """Compare exported files with the torch network: their features, and kNN with them."""
    from lightssl import pipeline

    result = pipeline.verify(models or (), run=run, data=data, arch=arch, narrator=Terminal())
    if json:
        print_json(result)
        return
    reference, *rows = result["rows"]
    print_table(
        f"Beside torch, on {rows[0]['images']:,} images of {result['data']}, computed on {rows[0]['computed_on']}",
        ["file", "precision", "for", "MB", "computed in", "largest error", "mean error", "cosine", result["accuracy"]],
        [
            ["torch", reference["precision"], *["-"] * 6, _percent(reference)],
            *(
                [
                    row["model"],
                    row["precision"],
                    row["architecture"],
                    f"{row['bytes'] / 1e6:.2f}",
                    row["computed_in"],
                    f"{row['max_error']:.1e}",
                    f"{row['mean_error']:.1e}",
                    f"{row['cosine']:.5f}",
                    _percent(row),
                ]
                for row in rows
            ),
        ],
    )


def _percent(row: dict[str, Any]) -> str:
    return "-" if row["top1"] is None else f"{row['top1']:.1f} %"
