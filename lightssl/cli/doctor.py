"""``lightssl doctor``."""

from typing import Annotated

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import console, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("lightssl doctor", "lightssl doctor --json"))(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """Show versions, devices and threads, and what is missing."""
    from lightssl.machine import describe_machine, versions

    machine, installed = describe_machine(), versions()
    if installed["torch"] is not None:
        import torch

        machine["torch_threads"] = torch.get_num_threads()
    if json:
        print_json({"machine": machine, "versions": installed})
        return
    print_table("Machine", ["what", "is"], [[name.replace("_", " "), _text(value)] for name, value in machine.items()])
    print_table(
        "Versions", ["package", "version"], [[name, version or "missing"] for name, version in installed.items()]
    )
    missing = [name for name, version in installed.items() if version is None]
    if missing:
        console.print(f"Missing: {', '.join(missing)}. Install with: pip install {' '.join(missing)}")
        raise typer.Exit(1)
    console.print("Nothing is missing.")


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return (
        {True: "yes", False: "no", None: "unknown"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )
