"""``lightssl import``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import SetOption
from lightssl.cli.terminal import Terminal, console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "import",
        epilog=examples(
            "lightssl import mobilenet_v2-7ebf99e0.pth --from torchvision",
            "lightssl import dino_mnv2_sslight.pth.tar --from sslight --network teacher --out runs/teacher",
        ),
    )(import_)


def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint, as torch.save or safetensors wrote it.")],
    from_: Annotated[
        str,
        typer.Option("--from", help="Who published it: sslight, dino, swav, moco, lightly, torchvision or timm."),
    ],
    network: Annotated[
        Optional[str],
        typer.Option(
            help="Which network of the file: student, teacher, query, key, ...",
            show_default="the one that its authors evaluate",
        ),
    ] = None,
    recipe: Annotated[
        Optional[str],
        typer.Option(
            help="Says which backbone it is and how it is fed ('lightssl recipes ls').",
            show_default="found by the names and shapes in the file",
        ),
    ] = None,
    set_: SetOption = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run.", show_default="runs/TIME-RECIPE")] = None,
) -> None:
    """Make a run of a checkpoint that others published, to evaluate, export and time it.

    Nothing in the file is executed. If its tensors do not fit, they are listed and nothing is written.
    """
    from lightssl import pipeline

    run = pipeline.import_weights(
        file, from_, network=network, recipe=recipe, overrides=set_ or (), out=out, narrator=Terminal()
    )
    console.print(str(run))
