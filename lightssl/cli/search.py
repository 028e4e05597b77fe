"""``lightssl search``."""

import os
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import (
    DataOption,
    JSONOption,
    gone_on_with,
    resume_option,
    scale_option,
    storage_option,
    was_given,
)
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "lightssl search --flops 300M",
            "lightssl search --flops 300M --params 2.5M --pretrain",
            "lightssl search --latency 60ms --target predict:raspberry-pi-4",
            "lightssl search --latency 20ms --params 3M --target ssh:pi@raspberry --threads 4",
            "lightssl search --space resnet_basic --flops 1.8G --recipe resnet18_mocov2 --strategy random",
            "lightssl search --flops 300M --strategy differentiable",
            "lightssl search --flops 300M --set search.candidates=100 --set search.supernet='30k examples'",
            "lightssl search --resume runs/search",
            "lightssl search --join runs/search",
        )
    )(search)


def search(
    flops: Annotated[
        Optional[str], typer.Option(help="Most multiply-accumulates for one image: 300M.", show_default=False)
    ] = None,
    params: Annotated[Optional[str], typer.Option(help="Most parameters: 3.5M.", show_default=False)] = None,
    latency: Annotated[
        Optional[str],
        typer.Option(help="Most time for one image on --target: 20ms, 0.1s or 800us.", show_default=False),
    ] = None,
    target: Annotated[
        Optional[str],
        typer.Option(
            help="Device of --latency: predict:NAME or a YAML file of bench; or cpu, ssh:HOST, adb:SERIAL, on which "
            "some networks are timed first, to predict the others.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[Optional[int], typer.Option(help="There.", show_default="the first of the profile")] = None,
    image_size: Annotated[
        Optional[int],
        typer.Option(
            help="Input size, in pixels, that the budget is counted at: what you will deploy. Training uses the views "
            "of the scale.",
            show_default="the recipe's as published, mostly 224",
        ),
    ] = None,
    space: Annotated[
        Optional[str],
        typer.Option(
            help="mobilenetv2, resnet_basic, resnet_bottleneck or vit.", show_default="that of the recipe's backbone"
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="evolve: a supernet, then evolution. random: a supernet, then candidates drawn at random. "
            "differentiable: a supernet whose choices gradients make. zero-cost: evolution on scores of untrained "
            "networks."
        ),
    ] = "evolve",
    recipe: Annotated[
        Optional[str],
        typer.Option(help="How the supernet learns: a recipe's name or YAML file.", show_default="DINO on the space"),
    ] = None,
    data: DataOption = "sample",
    scale: Annotated[
        Optional[str], scale_option("how the supernet is trained and how many candidates are scored")
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value of the recipe, or search.KEY; repeat for more."
        ),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Score candidates by kNN with the labels of the images.")
    ] = False,
    seed: Annotated[Optional[int], typer.Option(help="Decides everything that is drawn.", show_default=False)] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the run.", show_default="runs/TIME-search-RECIPE")
    ] = None,
    storage: Annotated[Optional[str], storage_option("candidates")] = None,
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="Go on to train the winner, in the same folder.")
    ] = False,
    resume: Annotated[Optional[Path], resume_option("a search")] = None,
    join: Annotated[
        Optional[Path],
        typer.Option(metavar="RUN", help="Help a search that is scoring candidates, as one more worker."),
    ] = None,
    json: JSONOption = False,
    ctx: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Search for the network that learns best, without labels, within a budget.

    All costs are upper limits, counted at one input size; the winner uses up 95 to 100 % of the tightest.
    """
    from lightssl import pipeline
    from lightssl.units import parse_count, parse_milliseconds

    if pretrain and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--pretrain does not go with several processes, which part to score candidates.",
            "Leave it out, and train the winner with the command that the search ends in.",
        )
    narrator = Terminal()
    running = gone_on_with(ctx, "search", beside=["pretrain"])
    if running is not None:
        result = pipeline.resume_search(
            running, data=data if was_given(ctx, "data") else None, join=join is not None, narrator=narrator
        )
    else:
        asked = {"flops": flops, "parameters": params}
        limits = {name: float(parse_count(text)) for name, text in asked.items() if text is not None}
        if latency is not None:
            limits["latency_ms"] = parse_milliseconds(latency)
        if not limits:
            raise ConfigError(
                "A search needs a budget.",
                "Give one or more: --flops 300M --params 3.5M --latency 20ms --target predict:raspberry-pi-4",
            )
        result = pipeline.search_network(
            limits,
            strategy=strategy,
            space=space,
            recipe=recipe,
            image_size=image_size,
            data=data,
            scale=scale,
            overrides=set_ or (),
            seed=seed,
            labels=labels,
            target=target,
            threads=threads,
            out=out,
            storage=storage,
            narrator=narrator,
        )
    if result is None:
        return
    if json:
        print_json(result)
    else:
        _print(result)
    if pretrain:
        pipeline.pretrain_winner(result, narrator=narrator)


def _print(result: dict[str, Any]) -> None:
    from lightssl.pipeline.search_results import predicted

    rows = {"winner": result["winner"], **result["stock"]}
    names = [name for name in result["winner"] if name not in ("candidate", "score")]
    print_table(
        f"Of {result['candidates']:,} candidates",
        ["network", *names],
        [[name, *(_figure(row[key]) for key in names)] for name, row in rows.items()],
    )
    console.print(f"Winner: {result['winner']['candidate']}", markup=False)
    if "latency" in result:
        console.print(f"Latency: {predicted(result)}", markup=False)
    console.print(f"Page: {Path(result['recipe']).with_name('search.html')}", markup=False)
    console.print(f"Next: {result['next']}", markup=False)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
