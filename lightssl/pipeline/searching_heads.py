"""``search-heads``: from a method to a recipe whose heads suit it better."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lightssl.chains import OPERATIONS, SEARCHED
from lightssl.checkpoint import load_checkpoint
from lightssl.config.load import PUBLISHED_SCALE, available, compose, dump, load_options, merge, parse_override, resolve
from lightssl.config.schema import Recipe
from lightssl.data.sources import open_source
from lightssl.errors import ConfigError
from lightssl.files import read_json_lines, write_bytes, write_json, write_text
from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.pipeline.asked import new_folder, read_asked
from lightssl.pipeline.building import SAMPLE, build_method, describe_environment, options_of
from lightssl.pipeline.training import (
    check_same_images,
    checked_method,
    default_scale,
    fit,
    make_trainer,
    plan_of,
    pretrain,
    training_batches,
)
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.search.heads import HeadSearch, Shares, genotype, searched_parts, shares
from lightssl.train.architecture import halves
from lightssl.train.host import prepare_host
from lightssl.types import Batch

FOLDER = "search-heads"  # of a run: what the search leaves behind
SECTION = "heads"  # what overrides of the search's options begin with
# What the paper does otherwise in its searches than in the trainings after them.
_PUBLISHED = {"mocov2": ["method.momentum=0.999"], "simclr": [f"{SECTION}.optimizer=adam"]}


@dataclass(frozen=True)
class HeadQuestion:
    """What is asked, from which everything else follows."""

    method: str
    recipe: str
    composed: dict[str, Any]  # the recipe as its files have it, before scale and overrides
    scale: str
    overrides: list[str]

    @property
    def recipe_overrides(self) -> list[str]:
        """Overrides of the recipe; the others are of the search."""
        return [text for text in self.overrides if not _is_option(text)]

    @property
    def parts(self) -> list[str]:
        """The options of the method that are searched for."""
        return searched_parts(METHODS[self.method])

    def options(self) -> HeadSearch:
        """Return how the search goes."""
        texts = filter(_is_option, [*self._published(), *self.overrides])
        return HeadSearch(
            **options_of(load_options(SECTION, self.method, HeadSearch, scale=self.scale, overrides=list(texts)))
        )

    def resolve(self) -> Recipe:
        """Return the recipe that the search trains by.

        Raises:
            ConfigError: It has problems, is of another method, or says what the search is to find.
        """
        texts = [text for text in [*self._published(), *self.overrides] if not _is_option(text)]
        for text in texts:
            below = parse_override(text).get("method")
            for part in self.parts:
                if isinstance(below, Mapping) and part in below:
                    raise ConfigError(f"{text}: a search for heads chooses method.{part} itself.", "Leave it out.")
        recipe = resolve(self.recipe, self.composed, scale=self.scale, overrides=texts, origin=f"Recipe {self.recipe}")
        if recipe.method.name != self.method:
            raise ConfigError(
                f"The recipe {self.recipe} is of the method {recipe.method.name}, not {self.method}.",
                "Name another recipe, or leave one of --method and --recipe out.",
            )
        options = recipe.train.model_copy(update={"duration": self.options().duration, "probe": False})
        return recipe.model_copy(update={"train": options})

    def build(self, recipe: Recipe) -> Method:
        """Build the method with mixed heads."""
        return build_method(recipe, changes=dict.fromkeys(self.parts, SEARCHED))

    def _published(self) -> list[str]:
        return _PUBLISHED.get(self.method, []) if self.scale == PUBLISHED_SCALE else []


def _is_option(text: str) -> bool:
    return text.strip().startswith(f"{SECTION}.")


def search_heads(
    method: str | None = None,
    *,
    recipe: str | None = None,
    data: str = SAMPLE,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: Path | str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Search for the operations of a method's heads, without labels.

    Args:
        method: A name in :data:`lightssl.methods.METHODS`; by default that of the recipe.
        recipe: Name of a shipped recipe, or path of a YAML file: how heads are searched and later trained. By default
            ResNet18's with the method, for CIFAR where there is one.
        data: As for :func:`lightssl.pipeline.pretrain`.
        scale: As there; also decides how long the search takes.
        overrides: Texts like ``train.batch_size=64`` for the recipe, and ``heads.duration='30k examples'`` for the
            options of :class:`~lightssl.search.heads.HeadSearch`.
        seed: Short for the override ``train.seed``.
        out: Folder of the run; results are in its folder ``search-heads``. By default one below ``runs/``.
        narrator: Told how it goes.

    Returns:
        What was also written to ``search-heads/search-heads.json``: what was ``asked``, the ``genotype`` by part, and
        the ``shares`` of all operations by layer. None if the search was stopped, or in a process that is not the
        first.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    if seed is not None:
        overrides = [*overrides, f"train.seed={seed}"]
    if method is not None:
        METHODS[method]  # raises with the closest name
    recipe = recipe or _default_recipe(method)
    composed = compose(recipe)
    question = HeadQuestion(
        method=method or composed["method"]["name"],
        recipe=Path(recipe).stem,
        composed=composed,
        scale=scale or default_scale(data),
        overrides=list(overrides),
    )
    return _search(question, None, data=data, out=out, narrator=narrator or Silent())


def _default_recipe(method: str | None) -> str:
    if method is None:
        raise ConfigError("Heads are searched for a method.", f"Name one with --method: {', '.join(METHODS)}.")
    return next(name for name in (f"resnet18_{method}_cifar", f"resnet18_{method}") if name in available())


def resume_head_search(
    run: Path | str, *, data: str | None = None, narrator: Narrator | None = None
) -> dict[str, Any] | None:
    """Go on with a search that was stopped, to the same end as if it had not been.

    Args:
        run: Its folder.
        data: Where the images are now, if they have moved.
        narrator: Told how it goes.

    Returns:
        As :func:`search_heads`.

    Raises:
        LightSSLError: The folder holds no search, its checkpoint is damaged, or its images have changed.
    """
    question, asked = read_asked(run, FOLDER, HeadQuestion)
    return _search(question, Path(run), data=data or asked["data"], out=run, narrator=narrator or Silent())


def retrain_heads(result: Mapping[str, Any], *, narrator: Narrator | None = None) -> Run:
    """Train a method with the heads that a search found, from the start, in the folder of the search."""
    asked = result["asked"]
    question = HeadQuestion(**asked["question"])
    return pretrain(
        result["recipe"],
        data=asked["data"],
        scale=question.scale,
        overrides=question.recipe_overrides,
        out=Path(result["recipe"]).parent.parent,
        narrator=narrator,
    )


def _search(
    question: HeadQuestion, resumed: Path | None, *, data: str, out: Path | str | None, narrator: Narrator
) -> dict[str, Any] | None:
    from lightssl.train.fabric import make_fabric  # takes seconds to import

    recipe, options = question.resolve(), question.options()
    prepare_host()
    source = open_source(data, split="train")
    batch = recipe.train.batch_size
    for_weights, for_architecture = halves(source, seed=recipe.train.seed, batch_size=batch)
    plan = plan_of(recipe, len(for_weights))
    fabric = make_fabric(recipe.train.precision)
    method, _ = checked_method(recipe, plan, for_weights, fabric.device, question.build)
    narrator = narrator if fabric.is_global_zero else Silent()
    # All processes write to one folder: the first one names it.
    folder = resumed or Path(
        fabric.broadcast(str(new_folder(out, recipe.name, FOLDER)) if fabric.is_global_zero else "")
    )
    run = Run(folder / FOLDER)

    def batches(done: int) -> Iterable[Batch]:
        return training_batches(recipe, for_architecture, plan, fabric, start_step=done)

    kept = {**dump(recipe), SECTION: {key: str(value) for key, value in asdict(options).items()}}
    trainer = make_trainer(
        recipe,
        method,
        plan,
        for_weights,
        fabric=fabric,
        run=run,
        kept=kept,
        architecture=options.steps(method, batches),
    )
    asked = {"question": asdict(question), "data": data, "options": kept[SECTION]}
    if resumed is not None:
        check_same_images(run, source)
    if run.checkpoint_path.exists():
        trainer.restore(load_checkpoint(run.checkpoint_path, recipe=kept))
        narrator.say(f"Going on from step {trainer.step:,} of {plan.total_steps:,} in {run}")
    elif fabric.is_global_zero:
        run.write_start(dump(recipe), describe_environment(data=data, images=len(source)))
        write_json(run.folder / f"{FOLDER}.json", {"asked": asked})
        narrator.say(
            f"{recipe.card.title}, scale {recipe.scale}: {plan.total_steps:,} steps of the weights and as many of the "
            f"architecture, {batch} images each, on two halves of {len(source):,} images of {source.name}, in {run}"
        )
    if not fit(trainer, recipe, for_weights, "Searching heads", narrator):
        narrator.say(f"Stopped. Go on with: lightssl search-heads --resume {folder}")
        return None
    return _write_results(run, question, asked, shares(method)) if fabric.is_global_zero else None


def _write_results(run: Run, question: HeadQuestion, asked: dict[str, Any], found: Shares) -> dict[str, Any]:
    from lightssl.reports.choices import choices  # brings matplotlib

    chosen = genotype(found)
    path = run.folder / "genotype.yaml"
    write_text(path, _genotype_recipe(question, chosen))
    rows = read_json_lines(run.metrics_path)
    over_time = {layer: {name: [row[f"{layer}.{name}"] for row in rows] for name in OPERATIONS} for layer in found}
    picture = choices(
        [row["epoch"] for row in rows],
        over_time,
        title=f"{question.recipe}: the share of each operation in each layer of its heads; stars mark the choice",
        unsure=1 / len(OPERATIONS),
    )
    write_bytes(run.folder / "heads.png", picture)
    result = {
        "asked": asked,
        "genotype": chosen,
        "shares": found,
        "recipe": str(path),
        "next": _next_command(path, question, asked["data"]),
    }
    write_json(run.folder / f"{FOLDER}.json", result)
    return result


def _genotype_recipe(question: HeadQuestion, chosen: Mapping[str, str]) -> str:
    """Return a recipe file with the heads that were found, which scales and overrides change as they do any other."""
    card = question.composed["card"]
    changes = {
        "card": {
            "title": f"{card['title']}, with heads found by search",
            "in_paper": False,
            "published": {},
            "measured": "Not trained yet.",
        },
        "method": dict(chosen),
    }
    recipe = yaml.safe_dump(merge(question.composed, changes), sort_keys=False, allow_unicode=True, width=120)
    return f"# {question.recipe} with the heads that lightssl search-heads found at scale {question.scale}.\n{recipe}"


def _next_command(path: Path, question: HeadQuestion, data: str) -> str:
    """Return the command that trains the method with the heads that were found."""
    words = ["lightssl", "pretrain", "--recipe", str(path), "--scale", question.scale]
    words += ["--data", data] if data != SAMPLE else []
    words += [word for text in question.recipe_overrides for word in ("--set", text)]
    return shlex.join(words)
