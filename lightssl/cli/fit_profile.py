"""``lightssl fit-profile``."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import console, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        name="fit-profile",
        epilog=examples(
            "lightssl fit-profile measured.json board.yaml",
            "lightssl fit-profile measured.json board.yaml --runtime onnxruntime",
        ),
    )(fit_profile)


def fit_profile(
    measurements: Annotated[Path, typer.Argument(help="JSON from lightssl bench --json, or a CSV table.")],
    profile: Annotated[Path, typer.Argument(help="The YAML file to write.")],
    runtime: Annotated[
        Optional[str], typer.Option(help="The one to learn, where several were measured.", show_default="the only one")
    ] = None,
) -> None:
    """Learn from measured models how long others will take on the same device."""
    from lightssl import pipeline

    learnt = pipeline.fit_profile(measurements, profile, runtime=runtime)
    print_table(
        f"{profile}: {learnt.settings['device']}, {learnt.settings['runtime']}",
        ["threads", "models", "error of models left out", "of FLOPs alone"],
        [
            [
                str(fit["threads"]),
                str(len(fit["measured"])),
                f"{fit['held_out_error_percent']:.1f} %",
                f"{fit['flops_error_percent']:.1f} %",
            ]
            for fit in learnt.settings["fits"]
        ],
    )
    console.print(f"Use it with: lightssl bench MODEL --target {profile}", markup=False)
