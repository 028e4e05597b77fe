"""What options of several commands have in common."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from lightssl.errors import ConfigError

DataOption = Annotated[
    str, typer.Option(help="A folder of images, 'DIR/*.tar', torchvision:NAME, or sample (embedded).")
]
RecipeOption = Annotated[str, typer.Option(help="A recipe's name ('lightssl recipes ls') or YAML file.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeat for more."),
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def scale_option(decides: str) -> Any:
    """Return ``--scale``, which decides something in the three ways that recipes can be run."""
    return typer.Option(
        help=f"paper, small or quick: {decides}.", show_default="quick on the sample or without a GPU, else small"
    )


def storage_option(kept: str) -> Any:
    """Return ``--storage``, which names the database that something is kept in."""
    return typer.Option(
        metavar="URL", help=f"Database that {kept} are kept in.", show_default="a file in the folder of --out"
    )


def resume_option(what: str, *, data: str = "data", metavar: str = "RUN") -> Any:
    """Return ``--resume``, which goes on with something, on images that ``--DATA`` can name anew."""
    return typer.Option(metavar=metavar, help=f"Go on with {what} that was stopped; --{data} if the images have moved.")


def was_given(ctx: typer.Context, name: str) -> bool:
    """Tell whether an argument of a command was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def gone_on_with(ctx: typer.Context, what: str, *, beside: Collection[str] = ()) -> Path | None:
    """Return the folder that ``--resume`` or ``--join`` names; None where something new is started.

    Args:
        ctx: Of the command.
        what: The command starts: a run, a search.
        beside: Names of the arguments that may go with them, besides ``data`` and ``json``.

    Raises:
        ConfigError: Others were given.
    """
    chosen = [name for name in ("resume", "join") if ctx.params.get(name) is not None]
    if not chosen:
        return None
    allowed = {"data", "json", chosen[0], *beside}
    given = [_spelled(name) for name in ctx.params if name not in allowed and was_given(ctx, name)]
    if given:
        raise ConfigError(
            f"--{chosen[0]} goes on with the {what} as it was started and cannot be combined with {', '.join(given)}.",
            f"Leave them out, or start a new {what}.",
        )
    folder: Path = ctx.params[chosen[0]]
    return folder


def parse_seeds(text: str) -> list[int]:
    """Read whole numbers with commas between them.

    Raises:
        ConfigError: They are none.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text} are no whole numbers.", "Write them like --seeds 0,1") from error


def _spelled(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


RunArgument = Annotated[
    Optional[Path],
    typer.Argument(help="Folder of a run, or a .safetensors file of weights by themselves.", show_default="the latest"),
]

# Of the commands of a study.
SizeOption = Annotated[int, typer.Option(help="Pixels of the image that FLOPs are counted of.")]
WhereOption = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="CONDITION",
        help="Keep the members that meet it, such as 'flops<2G' or 'params>=10M'; repeat for more.",
        show_default=False,
    ),
]
LimitOption = Annotated[Optional[int], typer.Option(metavar="N", help="Keep the first N of them.", show_default="all")]
MemberScaleOption = Annotated[Optional[str], scale_option("how members are trained")]

StudyArgument = Annotated[
    Optional[Path], typer.Argument(metavar="DIR", help="Folder of a study.", show_default="the latest")
]

_SHOWN = 10  # networks of a report
