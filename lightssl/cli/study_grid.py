"""``lightssl study grid``: the networks of a study, and what they cost."""

from typing import Annotated, Any

import typer

from lightssl.cli.options import (
    DataOption,
    JSONOption,
    LimitOption,
    MemberScaleOption,
    SetOption,
    SizeOption,
    WhereOption,
)
from lightssl.cli.terminal import Terminal, console, print_json, print_table


def grid(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="one-network-116, basic-81, revisiting, or a YAML file: a list of networks, each with a name and a "
            "backbone as in a recipe.",
        ),
    ],
    image_size: SizeOption = 224,
    where: WhereOption = None,
    limit: LimitOption = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Train a few steps to estimate what the whole study takes.")
    ] = True,
    recipe: Annotated[
        str, typer.Option(help="How members are trained: a recipe's name or YAML file. Its backbone is replaced.")
    ] = "resnet18_simclr_cifar",
    data: DataOption = "sample",
    scale: MemberScaleOption = None,
    set_: SetOption = None,
    json: JSONOption = False,
) -> None:
    """Print the members of a grid, what each costs, and what pre-training all of them would take on this machine.

    For the estimate, the smallest and the largest of each kind of network are trained for a few steps; others are taken
    to lie between them as their FLOPs do.
    """
    from lightssl import pipeline

    result = pipeline.study_grid(
        name,
        image_size=image_size,
        where=where or (),
        limit=limit,
        timing=timing,
        recipe=recipe,
        data=data,
        scale=scale,
        overrides=set_ or (),
        narrator=Terminal(),
    )
    if json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    members = result["members"]
    print_table(
        f"{len(members)} members of {result['grid']}, at {result['image_size']} pixels",
        ["member", "backbone", "blocks", "FLOPs", "parameters"],
        [
            [
                row["name"],
                row["backbone"]["name"],
                " ".join(map(str, row["depths"] or [])),
                f"{row['flops'] / 1e6:,.1f}M",
                f"{row['parameters'] / 1e6:,.2f}M",
            ]
            for row in members
        ],
    )
    estimate = result["estimate"]
    if estimate is None:
        return
    print_table(
        f"{estimate['recipe']} at scale {estimate['scale']} on {estimate['images']:,} images of {estimate['data']}",
        ["timed", "steps", "s / step", "images/s", "whole training", "peak memory"],
        [
            [
                row["name"],
                f"{row['steps']:,}",
                f"{row['step_seconds']:.3g}",
                f"{row['images_per_s']:,.0f}",
                _time(row["hours"]),
                _memory(row),
            ]
            for row in estimate["timed"]
        ],
    )
    console.print(
        f"Pre-training all {len(members)}, one after the other on this machine: about {_time(estimate['hours'])}, "
        "interpolated over FLOPs between those timed; evaluations come on top.",
        markup=False,
    )
    console.print(
        f"Peak memory of those timed, without the processes that make views: {_memory(estimate)}", markup=False
    )


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _memory(row: dict[str, Any]) -> str:
    host, device = row["memory_gib"], row["device_memory_gib"]
    parts = [f"{host:.2f} GiB" if host is not None else "unknown"]
    if device is not None:
        parts.append(f"{device:.2f} GiB on the GPU")
    return " and ".join(parts)
