"""``lightssl views sweep``."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.options import (
    DataOption,
    JSONOption,
    SetOption,
    gone_on_with,
    parse_seeds,
    resume_option,
    scale_option,
    storage_option,
    was_given,
)
from lightssl.cli.terminal import Terminal, console, print_json, print_table
from lightssl.errors import ConfigError


def register(group: typer.Typer) -> None:
    """Add the command to the group ``views``."""
    group.command(
        epilog=examples(
            "lightssl views sweep --axis boundary=0.14,0.2,0.3,0.4",
            "lightssl views sweep --axis boundary=0.14,0.3 --axis local_size=14,18,22 --axis local_count=2,4,6 "
            "--axis balance=0.4,0.6,pairs --seeds 0,1,2 --set train.duration='20k examples'",
            "lightssl views sweep --axis local_size=14,18,22 --axis local_count=2,4,6 --design grid --equal-cost",
            "lightssl views sweep --axis boundary=0.14,0.2,0.3,0.4 --axis balance=0.4,0.6,0.8 --design guided "
            "--trials 8 --score rank",
            "lightssl views sweep --resume runs/sweep",
            "lightssl views sweep --join runs/sweep",
            "lightssl views sweep --resume runs/sweep --point boundary-0.2-seed0",
        )
    )(sweep)


def sweep(
    axis: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME=VALUES",
            help="What is varied, and its values: boundary (largest area of local views and least of global ones), "
            "local_size (pixels at this scale: 128 of the published 224 are 18 of the 32 at quick), local_count, "
            "balance (weight of local terms, or pairs). Repeat for more.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Where the sweep starts from: a recipe's name ('lightssl recipes ls') or YAML file.")
    ] = "mobilenetv2_dino",
    data: DataOption = "sample",
    design: Annotated[
        str,
        typer.Option(
            help="factor: one axis at a time. grid: all combinations. guided: combinations that Optuna's TPE proposes. "
            "The recipe's own plan is always measured too."
        ),
    ] = "factor",
    trials: Annotated[int, typer.Option(help="Points of a guided sweep.")] = 20,
    score: Annotated[
        Optional[str],
        typer.Option(
            help="knn: accuracy by labels. rank: effective rank of features. loss: of the method, in the recipe's own "
            "views. All on images that are held out.",
            show_default="knn where images are labelled, else rank",
        ),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option(metavar="N,N", help="Train each point with all of these.", show_default="that of the recipe"),
    ] = None,
    equal_cost: Annotated[
        bool, typer.Option("--equal-cost", help="As many FLOPs over all views at each point, not as many steps.")
    ] = False,
    pruning: Annotated[
        Optional[bool],
        typer.Option(
            "--pruning/--no-pruning",
            help="Give points up early whose scores are low (successive halving).",
            show_default="with grid and guided",
        ),
    ] = None,
    scale: Annotated[Optional[str], scale_option("how each point is trained")] = None,
    set_: SetOption = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the run.", show_default="runs/TIME-sweep-RECIPE")
    ] = None,
    storage: Annotated[Optional[str], storage_option("results")] = None,
    resume: Annotated[Optional[Path], resume_option("a sweep")] = None,
    join: Annotated[
        Optional[Path], typer.Option(metavar="RUN", help="Help a sweep that is under way, as one more worker.")
    ] = None,
    point: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME", help="With --resume: train this point again, alone, and compare.", show_default=False
        ),
    ] = None,
    json: JSONOption = False,
    ctx: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Measure which views a network learns from best, on your own images.

    Short pre-trainings that differ in their view plan alone are scored on images that none of them saw. Ends in a page
    and in recommended.yaml, a recipe for 'lightssl pretrain'.
    """
    from lightssl import pipeline

    narrator = Terminal()
    running = gone_on_with(ctx, "sweep", beside=["point"])
    if point is not None and resume is None:
        raise ConfigError("--point names a point of a sweep.", "Name the sweep's folder with --resume.")
    moved = data if was_given(ctx, "data") else None
    if point is not None and resume is not None:
        again = pipeline.repeat_point(resume, point, data=moved, narrator=narrator)
        if again is not None:
            _print_again(again, json)
        return
    if running is not None:
        result = pipeline.resume_sweep(running, data=moved, join=join is not None, narrator=narrator)
    else:
        result = pipeline.sweep_views(
            recipe,
            axes=axis or (),
            data=data,
            design=design,  # type: ignore[arg-type]
            trials=trials,
            score=score,
            seeds=parse_seeds(seeds) if seeds is not None else (),
            equal_cost=equal_cost,
            pruning=pruning,
            scale=scale,
            overrides=set_ or (),
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


def _print(result: dict[str, Any]) -> None:
    print_table(
        f"{len(result['points'])} points",
        ["point", result["asked"]["question"]["score"], "FLOPs of an image's views", "images/s", "minutes"],
        [
            [
                row["point"],
                f"{row['score']:.4g}" if "score" in row else row["state"],
                f"{row['flops_per_image'] / 1e6:,.1f}M",
                f"{row['images_per_s']:,.0f}" if "images_per_s" in row else "",
                f"{row['minutes']:.1f}" if "minutes" in row else "",
            ]
            for row in result["points"]
        ],
    )
    console.print(result["verdict"], markup=False)
    console.print(f"Page: {Path(result['recipe']).with_name('sweep.html')}", markup=False)
    console.print(f"Next: {result['next']}", markup=False)


def _print_again(again: dict[str, Any], json: bool) -> None:
    if json:
        print_json(again)
        return
    before = again["before"]
    said = (
        "the sweep has none yet"
        if before is None
        else "the same as in the sweep"
        if before == again["score"]
        else (f"{before!r} in the sweep")
    )
    console.print(f"{again['point']}, seed {again['seed']}: {again['score']!r}, {said}", markup=False)
