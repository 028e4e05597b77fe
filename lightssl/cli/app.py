"""``lightssl``: the program."""

import os
import sys
import warnings
from typing import Annotated

import typer

from lightssl import __version__
from lightssl.cli import (
    bench,
    doctor,
    embed,
    evaluate,
    export,
    fit_profile,
    import_,
    pretrain,
    recipes,
    report,
    search,
    search_heads,
    study,
    verify,
    views,
)
from lightssl.cli.terminal import fail, print_warnings
from lightssl.errors import LightSSLError

app = typer.Typer(
    name="lightssl",
    add_completion=False,
    help="Self-supervised learning for low-compute networks: pre-train on unlabelled images, evaluate, export, time.",
    epilog="Start with: lightssl pretrain --recipe mobilenetv2_dino",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lightssl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of the program itself."""


for module in (
    views,
    pretrain,
    search,
    search_heads,
    study,
    import_,
    evaluate,
    embed,
    export,
    verify,
    bench,
    fit_profile,
    report,
    recipes,
    doctor,
):
    module.register(app)


def main() -> None:
    """Run the program; a LightSSLError ends it with its message and exit status, without a traceback."""
    # Nothing phones home. Both must be set before the libraries are imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    print_warnings()
    try:
        app()
    except LightSSLError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
