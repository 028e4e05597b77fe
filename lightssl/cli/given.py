"""Which options were given, and how they are spelled."""

import typer


def was_given(ctx: typer.Context, name: str) -> bool:
    """Tell whether an argument of a command was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def spelled(name: str) -> str:
    """Return the option of an argument: ``--set`` for ``set_``."""
    return f"--{name.rstrip('_').replace('_', '-')}"
