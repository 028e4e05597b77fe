"""``lightssl study run``: every network of a grid trained, and judged in every scenario."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.options import (
    JSONOption,
    LimitOption,
    MemberScaleOption,
    SetOption,
    SizeOption,
    WhereOption,
    gone_on_with,
    parse_seeds,
    resume_option,
    storage_option,
    was_given,
)
from lightssl.cli.study_report import print_report
from lightssl.cli.terminal import Terminal
from lightssl.errors import ConfigError


def run(
    grid: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="one-network-116, basic-81, revisiting, or a YAML file of networks: see 'lightssl study grid'.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="METHOD",
            help="How members are pre-trained: simclr, mocov2, dino, rotation, ...; repeat for more.",
            show_default="simclr",
        ),
    ] = None,
    recipe: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="RECIPE",
            help="The same by a recipe's name or YAML file; its backbone is replaced.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[str, typer.Option(metavar="SRC", help="Images to pre-train on, as --data elsewhere.")] = "sample",
    downstream: Annotated[
        str,
        typer.Option(metavar="SRC,SRC", help="Labelled images: each is a scenario that all networks are judged in."),
    ] = "sample",
    task: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="TASK",
            help="How they are judged, as --task of 'lightssl evaluate'; repeat for more. The first counts for ranks.",
            show_default="linear_cv",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N", help="Train each member with all of these.")] = "0",
    image_size: SizeOption = 224,
    where: WhereOption = None,
    limit: LimitOption = None,
    scale: MemberScaleOption = None,
    set_: SetOption = None,
    time_budget: Annotated[
        Optional[str],
        typer.Option(metavar="TIME", help="Stop after so long, such as 8h or 90min.", show_default="none"),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the study.", show_default="runs/TIME-study-GRID")
    ] = None,
    storage: Annotated[Optional[str], storage_option("the jobs")] = None,
    resume: Annotated[Optional[Path], resume_option("a study", data="train", metavar="DIR")] = None,
    join: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Help a study that is under way, as one more worker.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: try again what failed, or could not be measured.")
    ] = False,
    json: JSONOption = False,
    ctx: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Pre-train all members of a grid, and measure each in all scenarios.

    Ends in a table (results.parquet) and a page that says which network is for which task. Networks that fail are
    written down and left behind. Any number of workers may join.
    """
    from lightssl import pipeline

    narrator = Terminal()
    running = gone_on_with(ctx, "study", beside=["train", "retry", "time_budget"])
    if retry and resume is None:
        raise ConfigError("--retry goes on with a study.", "Name its folder with --resume.")
    if running is not None:
        result = pipeline.resume_study(
            running,
            train=train if was_given(ctx, "train") else None,
            join=join is not None,
            retry=retry,
            time_budget=time_budget,
            narrator=narrator,
        )
    elif grid is None:
        raise ConfigError("A study needs a grid.", "Name one with --grid, such as --grid one-network-116.")
    else:
        result = pipeline.run_study(
            grid,
            recipes=recipe or (),
            methods=method or (),
            train=train,
            downstream=downstream.split(","),
            tasks=task or ("linear_cv",),
            seeds=parse_seeds(seeds),
            image_size=image_size,
            where=where or (),
            limit=limit,
            scale=scale,
            overrides=set_ or (),
            out=out,
            storage=storage,
            time_budget=time_budget,
            narrator=narrator,
        )
    if result is not None:
        print_report(result, json)
