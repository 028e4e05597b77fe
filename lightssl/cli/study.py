"""``lightssl study``, with ``grid`` and ``report``: which network for which task."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import DataOption, JSONOption, SetOption
from lightssl.cli.terminal import Terminal, console, print_json, print_table

_SHOWN = 10  # networks of a report


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Many networks on many tasks: which one is for which?", no_args_is_help=True)
    group.command(
        epilog=examples(
            "lightssl study grid one-network-116 --no-timing",
            "lightssl study grid one-network-116 --where 'flops<2G' --where 'params<15M' --no-timing",
            "lightssl study grid basic-81 --image-size 96 --limit 2 --recipe resnet18_simsiam_cifar --scale quick "
            "--set train.batch_size=16",
            "lightssl study grid one-network-116 --limit 10 --no-timing --json",
        )
    )(grid)
    group.command(epilog=examples("lightssl study report my-study", "lightssl study report my-study --json"))(report)
    app.add_typer(group, name="study", epilog=examples("lightssl study grid one-network-116 --no-timing"))


def grid(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="one-network-116, basic-81, revisiting, or a YAML file: a list of networks, each with a name and a "
            "backbone as in a recipe.",
        ),
    ],
    image_size: Annotated[int, typer.Option(help="Pixels of the image that FLOPs are counted of.")] = 224,
    where: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="CONDITION",
            help="Keep the members that meet it, such as 'flops<2G' or 'params>=10M'; repeat for more.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(metavar="N", help="Keep the first N of them.", show_default="all")
    ] = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Train a few steps to estimate what the whole study takes.")
    ] = True,
    recipe: Annotated[
        str, typer.Option(help="How members are trained: a recipe's name or YAML file. Its backbone is replaced.")
    ] = "resnet18_simclr_cifar",
    data: DataOption = "sample",
    scale: Annotated[
        Optional[str],
        typer.Option(
            help="paper, small or quick: how members are trained.",
            show_default="quick on the sample or without a GPU, else small",
        ),
    ] = None,
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


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the study.")],
    json: JSONOption = False,
) -> None:
    """Write one self-contained HTML page about a study: what it says of the networks, and how sure that is.

    The page, report.html, its figures and all numbers, report.json, go to the folder's study folder. A study that is
    still under way is reported as far as it is.
    """
    from lightssl import pipeline

    result = pipeline.study_report(folder, narrator=Terminal())
    if json:
        print_json(result)
    else:
        _print_report(result)


def _print_report(result: dict[str, Any]) -> None:
    networks, scenarios = result["networks"], [one["name"] for one in result["scenarios"]]
    rest = len(networks) - _SHOWN
    print_table(
        f"The best of {len(networks)} by mean rank; top-1 in percent, {result['task']}",
        ["network", "FLOPs", "parameters", "mean rank", *scenarios],
        [
            [
                row["name"],
                f"{row['flops'] / 1e6:,.1f}M",
                f"{row['parameters'] / 1e6:,.2f}M",
                f"{row['mean_rank']:.1f}",
                *(f"{row['top1'][scenario]:.1f}" for scenario in scenarios),
            ]
            for row in networks[:_SHOWN]
        ],
    )
    if rest > 0:
        console.print(f"and {rest} more", markup=False)
    for finding in result["verdict"]:
        console.print(f"\n{finding['claim']}: {finding['state']}", style="bold", markup=False)
        console.print(finding["text"], markup=False)
    for what, found in result["left_out"].items():
        if found:
            console.print(f"\n{what.capitalize()} left out: {', '.join(one['name'] for one in found)}", markup=False)
    console.print(f"\n{result['page']}", markup=False)
