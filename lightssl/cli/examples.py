"""Examples at the end of a command's help."""


def examples(*lines: str) -> str:
    """Format example calls as the epilogue of ``--help``, one to a line."""
    # Typer joins single line breaks in an epilogue; blank lines keep them apart.
    return "\n\n".join(["[bold]Examples[/bold]", *lines])
