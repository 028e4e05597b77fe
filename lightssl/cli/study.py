"""``lightssl study``: which network for which task."""

import typer

from lightssl.cli.examples import examples
from lightssl.cli.study_grid import grid
from lightssl.cli.study_pick import pick
from lightssl.cli.study_report import report
from lightssl.cli.study_run import run


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
    group.command(
        epilog=examples(
            "lightssl study run --grid basic-81 --limit 2 --set 'train.duration=20 steps' --out my-study",
            "lightssl study run --resume my-study",
            "lightssl study run --join my-study",
        )
    )(run)
    group.command(epilog=examples("lightssl study report my-study", "lightssl study report my-study --json"))(report)
    group.command(
        epilog=examples(
            "lightssl study pick my-study --downstream sample",
            "lightssl study pick my-study --downstream sample --flops 2G",
        )
    )(pick)
    app.add_typer(group, name="study", epilog=examples("lightssl study grid one-network-116 --no-timing"))
