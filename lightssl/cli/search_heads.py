"""``lightssl search-heads``."""

import os
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import DataOption, JSONOption, gone_on_with, resume_option, scale_option, was_given
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl search-heads --method simsiam",
            "lightssl search-heads --method mocov2 --set heads.duration='30k examples' --retrain",
            "lightssl search-heads --recipe vit_tiny_simclr_cifar --data photos --seed 1",
            "lightssl search-heads --resume runs/search-heads",
        )
    )(search_heads)


def search_heads(
    method: Annotated[
        Optional[str],
        typer.Option(help="simsiam, mocov2, simclr, dino or swav.", show_default="that of the recipe"),
    ] = None,
    recipe: Annotated[
        Optional[str],
        typer.Option(
            help="What the heads are for: a recipe's name or YAML file.",
            show_default="ResNet18 with the method, for CIFAR where there is one",
        ),
    ] = None,
    data: DataOption = "sample",
    scale: Annotated[Optional[str], scale_option("how networks are trained and how long the search takes")] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the recipe, or heads.duration, heads.rate, heads.optimizer; repeat for more.",
        ),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Decides weights, halves, order and views.", show_default=False)
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the run.", show_default="runs/TIME-search-heads-RECIPE")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Go on to train with the heads found, from the start, in the same folder.")
    ] = False,
    resume: Annotated[Optional[Path], resume_option("a search")] = None,
    json: JSONOption = False,
    ctx: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Search for the operations of a method's projector and predictor, without labels.

    All operations are mixed at first; half of the images trains the weights, the other half the mixture (NASiam).
    """
    from lightssl import pipeline

    if retrain and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--retrain does not go with several processes.",
            "Leave it out, and start the training with the command that the search ends in.",
        )
    narrator = Terminal()
    running = gone_on_with(ctx, "search", beside=["retrain"])
    if running is not None:
        result = pipeline.resume_head_search(running, data=data if was_given(ctx, "data") else None, narrator=narrator)
    else:
        result = pipeline.search_heads(
            method, recipe=recipe, data=data, scale=scale, overrides=set_ or (), seed=seed, out=out, narrator=narrator
        )
    if result is None:
        return
    if json:
        print_json(result)
    else:
        _print(result)
    if retrain:
        pipeline.retrain_heads(result, narrator=narrator)


def _print(result: dict[str, Any]) -> None:
    rows = []
    for layer, shares in result["shares"].items():
        part, number = layer.split(".")
        (chosen, share), (second, less), *_ = sorted(shares.items(), key=lambda item: -item[1])
        rows.append([f"{part} {int(number) + 1}", chosen, f"{share:.1%}", second, f"{less:.1%}"])
    print_table("Of every layer", ["layer", "chosen", "share", "second", "share"], rows)
    for part, operations in result["genotype"].items():
        console.print(f"{part}: {operations}", markup=False)
    console.print(f"Recipe: {result['recipe']}", markup=False)
    console.print(f"Picture: {Path(result['recipe']).with_name('heads.png')}", markup=False)
    console.print(f"Next: {result['next']}", markup=False)
