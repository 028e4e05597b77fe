"""``lightssl export``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import Terminal, console, print_json
from lightssl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl export --onnx", "lightssl export --onnx --out features.onnx --no-normalisation --json"
        )
    )(export)


def export(
    run: Annotated[Optional[Path], typer.Argument(help="Folder of a run.", show_default="the latest")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX.")] = False,
    out: Annotated[Optional[Path], typer.Option(help="The file.", show_default="export/model.onnx in the run")] = None,
    normalisation: Annotated[
        bool,
        typer.Option(
            "--normalisation/--no-normalisation", help="Whether the file takes RGB in 0..1 and normalises it itself."
        ),
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the pre-trained backbone for a device, checked against torch."""
    if not onnx:
        raise ConfigError("Name the format to export to.", "There is one so far: lightssl export --onnx")
    from dataclasses import asdict

    from lightssl import pipeline

    result = pipeline.export(run, out=out, include_normalisation=normalisation, narrator=Terminal())
    if json:
        print_json(asdict(result))
        return
    errors = [result.max_error_random, *([result.max_error_images] if result.max_error_images is not None else [])]
    console.print(
        f"{result.path}: {result.bytes / 1e6:.2f} MB, opset {result.opset}, input {result.input_size} px, "
        f"{result.feature_width} features, largest difference from torch {max(errors):.1e}"
    )
