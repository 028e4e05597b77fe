"""``lightssl pretrain``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import DataOption, RecipeOption, SetOption, gone_on_with, was_given
from lightssl.cli.terminal import Terminal, console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl pretrain --recipe mobilenetv2_dino",
            "lightssl pretrain --recipe mobilenetv2_dino --set train.duration='200 steps' --seed 1 --out runs/short",
            "lightssl pretrain --data torchvision:FakeData --set train.duration='5 steps'",
        )
    )(pretrain)


def pretrain(
    recipe: RecipeOption = "mobilenetv2_dino",
    data: DataOption = "sample",
    scale: Annotated[
        Optional[str],
        typer.Option(
            help="paper: as published. small: one GPU, tens of thousands of images. quick: two CPU cores, minutes. ",
            show_default="quick on the sample or without a GPU, else small",
        ),
    ] = None,
    set_: SetOption = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run.", show_default="runs/TIME-RECIPE")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Decides weights, order and views.", show_default=False)] = None,
    resume: Annotated[
        Optional[Path],
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was stopped, with its recipe and data; --data if they have moved.",
        ),
    ] = None,
    ctx: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Pre-train a backbone on unlabelled images.

    Runs as one process, or as many as torchrun starts: torchrun --nproc-per-node 8 -m lightssl pretrain ...
    """
    from lightssl import pipeline

    running = gone_on_with(ctx, "run")
    if running is not None:
        run = pipeline.resume(running, data=data if was_given(ctx, "data") else None, narrator=Terminal())
    else:
        run = pipeline.pretrain(
            recipe, data=data, scale=scale, overrides=set_ or (), seed=seed, out=out, narrator=Terminal()
        )
    console.print(str(run))
