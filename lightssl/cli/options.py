"""What options of several commands have in common."""

from typing import Annotated, Optional

import typer

DataOption = Annotated[
    str, typer.Option(help="A folder of images, 'DIR/*.tar', torchvision:NAME, or sample (embedded).")
]
RecipeOption = Annotated[str, typer.Option(help="A recipe's name ('lightssl recipes ls') or YAML file.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeat for more."),
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def was_given(ctx: typer.Context, name: str) -> bool:
    """Tell whether an argument of a command was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def spelled(name: str) -> str:
    """Return the option of an argument: ``--set`` for ``set_``."""
    return f"--{name.rstrip('_').replace('_', '-')}"
