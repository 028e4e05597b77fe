"""``lightssl recipes``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lightssl.cli.examples import examples
from lightssl.cli.terminal import console, print_table
from lightssl.errors import ConfigError

if TYPE_CHECKING:
    from lightssl.config.schema import Card

recipes = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True)

Scale = Annotated[str, typer.Option(help="paper, small or quick.")]
Set = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Change one value; repeat for more.")
]


# Columns of the list: what a card's figures are called, and how a table heads them.
_PUBLISHED = {
    "linear_top1": "linear top-1",
    "semi_1_percent_top1": "1 % labels",
    "semi_10_percent_top1": "10 % labels",
    "detection_ap": "detection AP",
    "segmentation_ap": "segmentation AP",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(
        recipes, name="recipes", epilog=examples("lightssl recipes ls", "lightssl recipes show mobilenetv2_dino")
    )


@recipes.command(epilog=examples("lightssl recipes ls"))
def ls() -> None:
    """List the recipes that ship with lightssl."""
    from lightssl.config.load import available, load_recipe

    recipes = {name: load_recipe(name) for name in available()}
    for method in dict.fromkeys(recipe.method.name for recipe in recipes.values()):
        print_table(
            f"{method}: published figures in %",
            ["recipe", *_PUBLISHED.values()],
            [[name, *_figures(recipe.card)] for name, recipe in recipes.items() if recipe.method.name == method],
        )
    console.print("'lightssl recipes show NAME' prints the card, with what we measured, and every value.")
    console.print(f"Scales: paper, {', '.join(available('scales'))}. View plans: {', '.join(available('views'))}.")


def _figures(card: "Card") -> list[str]:
    if not card.published:
        return ["unknown" if card.in_paper else "not in the paper", *[""] * (len(_PUBLISHED) - 1)]
    return [f"{card.published[key]:.1f}" if key in card.published else "" for key in _PUBLISHED]


@recipes.command(
    epilog=examples(
        "lightssl recipes show mobilenetv2_dino --scale paper", "lightssl recipes show mobilenetv2_dino --scale quick"
    )
)
def show(name: str, scale: Scale = "paper", set_: Set = None) -> None:
    """Print a recipe with every value filled in."""
    from lightssl.config.load import load_recipe, to_yaml

    recipe = load_recipe(name, scale=scale, overrides=set_ or ())
    console.print(f"# {recipe.views.describe()}", markup=False)
    console.print(to_yaml(recipe), end="", markup=False)


@recipes.command(epilog=examples("lightssl recipes cp mobilenetv2_dino mine.yaml"))
def cp(
    name: str,
    file: Path,
    scale: Scale = "paper",
    set_: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a recipe, with every value filled in, to a file of your own."""
    from lightssl.config.load import load_recipe, to_yaml
    from lightssl.files import write_text

    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{file} is not a YAML file's name.", "End it in .yaml")
    if file.exists() and not force:
        raise ConfigError(f"{file} exists.", "Choose another name, or replace it with --force.")
    write_text(file, to_yaml(load_recipe(name, scale=scale, overrides=set_ or ())))
    console.print(f"{file}: use it with lightssl pretrain --recipe {file} --scale paper")


@recipes.command(epilog=examples("lightssl recipes validate mobilenetv2_dino --set method.prototypes=1024"))
def validate(name: str, scale: Scale = "paper", set_: Set = None) -> None:
    """Check a recipe; every problem is reported at once."""
    from lightssl.config.load import load_recipe

    recipe = load_recipe(name, scale=scale, overrides=set_ or ())
    console.print(f"{recipe.name}, scale {recipe.scale}: valid")
