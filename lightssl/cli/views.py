"""``lightssl views``, and ``lightssl views preview``: what a recipe shows the network."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.cli import views_sweep
from lightssl.cli.examples import examples
from lightssl.cli.options import DataOption, RecipeOption, SetOption
from lightssl.cli.terminal import Terminal, console, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Look at the views of a recipe, or measure which suit your images.", no_args_is_help=True)
    group.command(
        epilog=examples(
            "lightssl views preview --recipe mobilenetv2_dino",
            "lightssl views preview --recipe mobilenetv2_dino --set views.local.size=96 --against sslight",
            "lightssl views preview --recipe vit_tiny_dino_baseline --images 3 --out vit.png --json",
        )
    )(preview)
    views_sweep.register(group)
    app.add_typer(group, name="views", epilog=examples("lightssl views preview --recipe mobilenetv2_dino"))


def preview(
    recipe: RecipeOption = "mobilenetv2_dino",
    data: DataOption = "sample",
    scale: Annotated[str, typer.Option(help="paper (the published sizes), small or quick.")] = "paper",
    set_: SetOption = None,
    seed: Annotated[Optional[int], typer.Option(help="Decides the views, as in pretrain.", show_default=False)] = None,
    images: Annotated[int, typer.Option(metavar="N", help="How many images to show.")] = 6,
    against: Annotated[
        Optional[str],
        typer.Option(
            metavar="PLAN",
            help="View plan to compare with: 'lightssl recipes ls' names them.",
            show_default="the baseline, or SSLight's for a baseline",
        ),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The picture.", show_default="views-RECIPE.png")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Draw the views of a few images, and how the views of many are distributed.

    Writes two pictures: images with their crops beside what the network sees of them, and, as .distributions.png, area,
    pixel scale and overlap of the views beside those of the plan that the recipe's own is compared with.
    """
    from lightssl import pipeline

    result = pipeline.preview_views(
        recipe,
        data=data,
        scale=scale,
        overrides=set_ or (),
        seed=seed,
        images=images,
        against=against,
        out=out,
        narrator=Terminal(),
    )
    if json:
        print_json(result)
        return
    _print(result)


def _print(result: dict[str, Any]) -> None:
    plans = result["plans"]
    columns = ["views", "pixels", "area share", "5-95 %", "pixel scale, median", "5-95 %", "enlarged"]
    print_table(
        f"{result['draws']:,} draws from {result['images']:,} images",
        columns,
        [
            [f"{name}: {kind} x {row['count']}", str(row["size"]), *_figures(row)]
            for name, plan in plans.items()
            for kind, row in plan.items()
            if kind in ("global", "local")
        ],
    )
    print_table(
        "Pixel-scale ratio, local over global, and mean overlap",
        ["plan", "ratio by the plan", "as drawn", "local inside global", "IoU of globals", "loss weights"],
        [
            [
                name,
                _ratio(plan["pixel_scale_ratio"]),
                _ratio(plan["pixel_scale_ratio_drawn"]),
                f"{plan['local_inside_global']['mean']:.0%}" if plan["local_inside_global"] else "",
                f"{plan['global_iou']['mean']:.0%}" if plan["global_iou"] else "-",
                " / ".join(f"{weight:.2f}" for weight in plan["weights"].values()),
            ]
            for name, plan in plans.items()
        ],
    )
    console.print(f"Views: {result['contact_sheet']}", markup=False)
    console.print(f"Distributions: {result['distributions']}", markup=False)


def _figures(row: dict[str, Any]) -> list[str]:
    area, scale = row["area_share"], row["pixel_scale"]
    return [
        f"{area['mean']:.0%}",
        f"{area['p5']:.0%}-{area['p95']:.0%}",
        f"{scale['p50']:.2f}",
        f"{scale['p5']:.2f}-{scale['p95']:.2f}",
        f"{row['enlarged_share']:.0%}",
    ]


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else ""
