"""``search``: from a budget to a recipe for the network that makes the most of it."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml

from lightssl.backbones import BACKBONES
from lightssl.config.load import PUBLISHED_SCALE, compose, dump, load_options, merge, resolve
from lightssl.config.schema import Recipe, keyword_options
from lightssl.data.sources import open_source, require_labels
from lightssl.errors import ConfigError, LightSSLError
from lightssl.files import write_bytes, write_json, write_text
from lightssl.pipeline.building import SAMPLE, describe_environment, options_of
from lightssl.pipeline.laboratory import Laboratory
from lightssl.pipeline.training import check_same_images, default_scale, pretrain
from lightssl.progress import Narrator, Silent
from lightssl.registry import did_you_mean
from lightssl.runs import Run, new_run
from lightssl.search import STRATEGIES
from lightssl.search.budget import budget_shares, check_budget
from lightssl.search.cost import CostTable
from lightssl.search.spaces import SPACES, Candidate, Space
from lightssl.search.task import Scored, Stopped, Task, best
from lightssl.train.host import prepare_host

if TYPE_CHECKING:
    from lightssl.reports.search import Part

SECTION = "search"  # what overrides of a strategy's options begin with
_DEFAULT_SPACE = "mobilenetv2"
_MAIN = "main"  # the worker that trains the supernet and writes the results


def search_network(
    limits: Mapping[str, float],
    *,
    strategy: str = "evolve",
    space: str | None = None,
    recipe: str | None = None,
    image_size: int | None = None,
    data: str = SAMPLE,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    labels: bool = False,
    out: Path | str | None = None,
    storage: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Search for the network that learns best, without labels, at a cost.

    Args:
        limits: The budget, such as ``{"flops": 300e6, "parameters": 3.5e6}``. The winner uses up 95 to 100 % of it.
        strategy: A name in :data:`lightssl.search.STRATEGIES`.
        space: A name in :data:`lightssl.search.spaces.SPACES`; by default that of the recipe's backbone.
        recipe: Name of a shipped recipe, or path of a YAML file: how the supernet is trained, and later the winner. By
            default DINO with the space's best-known network.
        image_size: Input size that the budget is counted at, in pixels; by default that which the recipe's networks are
            evaluated at as published. The supernet is trained on views of the scale's size.
        data: As for :func:`lightssl.pipeline.pretrain`.
        scale: As there; also decides how much is tried.
        overrides: Texts like ``train.batch_size=64`` for the recipe, and ``search.candidates=100`` for the strategy.
        seed: Short for the override ``train.seed``.
        labels: Short for ``search.score=knn``: score candidates by labels instead of without.
        out: Folder of the run; results are in its folder ``search``. By default one below ``runs/``.
        storage: URL of a database that candidates are kept in; by default a file in the folder.
        narrator: Told how it goes.

    Returns:
        What was also written to ``search/search.json``: what was ``asked``, the ``winner``, the ``stock`` networks and
        the number of ``candidates``. None if the search was stopped, or in a process that is not the first.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    if seed is not None:
        overrides = [*overrides, f"train.seed={seed}"]
    if labels:
        overrides = [*overrides, f"{SECTION}.score=knn"]
    if recipe is None:
        chosen = _space(space or _DEFAULT_SPACE)
        recipe = f"{next(iter(chosen.stock))}_dino"
    composed = compose(recipe)
    chosen = _space(space) if space is not None else _space_of(recipe, composed)
    published = resolve(recipe, composed, scale=PUBLISHED_SCALE, origin=f"Recipe {recipe}")
    question = _Question(
        strategy=strategy,
        space=chosen.name,
        limits=dict(limits),
        image_size=image_size or published.evaluation.image_size,
        recipe=Path(recipe).stem,
        composed=composed,
        scale=scale or default_scale(data),
        overrides=list(overrides),
    )
    return _search(question, None, data=data, out=out, storage=storage, narrator=narrator or Silent())


def resume_search(
    run: Path | str, *, data: str | None = None, join: bool = False, narrator: Narrator | None = None
) -> dict[str, Any] | None:
    """Go on with a search that was stopped, or help one that is under way.

    Args:
        run: Its folder.
        data: Where the images are now, if they have moved.
        join: Score candidates as one more worker, beside the process that does the search.
        narrator: Told how it goes.

    Returns:
        As :func:`search_network`; None for a worker that joined.

    Raises:
        LightSSLError: The folder holds no search, its checkpoint is damaged, or its images have changed.
    """
    path = Path(run) / SECTION / "search.json"
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))["asked"]
        question = _Question(**asked["question"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LightSSLError(f"{run} holds no search: {path} cannot be read.", "Name the folder of a search.") from error
    return _search(
        question,
        Path(run),
        data=data or asked["data"],
        out=run,
        storage=asked["storage"],
        narrator=narrator or Silent(),
        join=join,
    )


@dataclass(frozen=True)
class _Question:
    """What is asked, from which everything else follows."""

    strategy: str
    space: str
    limits: dict[str, float]
    image_size: int
    recipe: str
    composed: dict[str, Any]  # the recipe as its files have it, before scale and overrides
    scale: str
    overrides: list[str]

    @property
    def digest(self) -> str:
        """Tell questions apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def recipe_overrides(self) -> list[str]:
        """Overrides of the recipe; the others are of the strategy."""
        return [text for text in self.overrides if not _is_option(text)]

    @cached_property
    def searched(self) -> Space:
        """The space, at the one input size."""
        return replaced(SPACES[self.space], image_sizes=(self.image_size,))

    @cached_property
    def stock(self) -> dict[str, Candidate]:
        """The published networks of the space, by name."""
        return {name: self.searched.candidate(text, self.image_size) for name, text in self.searched.stock.items()}

    def mapping(self, candidate: Candidate) -> dict[str, Any]:
        """Return the recipe of a candidate, composed as its files would be."""
        below = self.composed["backbone"]
        known = keyword_options(BACKBONES[self.searched.backbone]).keys() - {"topology", *self.searched.options}
        kept = {key: value for key, value in below.items() if key in known}
        return merge(self.composed, self.searched.recipe(candidate, **kept))

    def resolve(self, scale: str) -> Recipe:
        """Return the recipe with the space's backbone, at a scale."""
        stock = next(iter(self.stock.values()))
        recipe = resolve(
            self.recipe,
            self.mapping(stock),
            scale=scale,
            overrides=self.recipe_overrides,
            origin=f"Recipe {self.recipe}",
        )
        if recipe.backbone.name != self.searched.backbone:
            raise ConfigError(
                f"The networks of the space {self.space} are {self.searched.backbone}, not {recipe.backbone.name}.",
                "Choose the space with --space, and leave backbone.name as it is.",
            )
        return recipe

    def backbone_options(self, recipe: Recipe) -> dict[str, Any]:
        """Return the options of the recipe's backbone that the space leaves open."""
        return {
            key: value
            for key, value in options_of(recipe.backbone).items()
            if key not in {"topology", *self.searched.options}
        }

    def strategy_options(self) -> dict[str, Any]:
        """Return the options of the strategy."""
        overrides = [text for text in self.overrides if _is_option(text)]
        return options_of(
            load_options(SECTION, self.strategy, STRATEGIES[self.strategy], scale=self.scale, overrides=overrides)
        )


def _is_option(override: str) -> bool:
    return override.strip().startswith(f"{SECTION}.")


def _space(name: str) -> Space:
    if name not in SPACES:
        hint = " ".join(filter(None, [did_you_mean(name, list(SPACES)), f"Known: {', '.join(SPACES)}."]))
        raise ConfigError(f"Unknown search space {name!r}.", hint)
    return SPACES[name]


def _space_of(recipe: str, composed: Mapping[str, Any]) -> Space:
    """Return the space that a recipe's backbone is of."""
    backbone = composed.get("backbone", {})
    for space in SPACES.values():
        options = {key: backbone.get(key, value) for key, value in space.options.items()}
        if backbone.get("name") in space.stock or (backbone.get("name") == space.backbone and options == space.options):
            return space
    raise ConfigError(
        f"No search space has networks like the backbone of {recipe}, {backbone.get('name')}.",
        f"Choose one with --space: {', '.join(SPACES)}.",
    )


def _search(
    question: _Question,
    resumed: Path | None,
    *,
    data: str,
    out: Path | str | None,
    storage: str | None,
    narrator: Narrator,
    join: bool = False,
) -> dict[str, Any] | None:
    strategy, options = STRATEGIES[question.strategy], question.strategy_options()
    recipe, deployed = question.resolve(question.scale), question.resolve(PUBLISHED_SCALE)
    if recipe.train.compile:
        raise ConfigError(
            "train.compile=true does not go with a supernet, which is another network in every pass.",
            "Leave it at false.",
        )
    table = CostTable(question.searched, **question.backbone_options(deployed))
    check_budget(table, question.limits)
    prepare_host()
    source = open_source(data, split="train")
    if options.get("score") == "knn":
        require_labels(source, "a score by labels")

    from lightssl.search.study import open_study  # these take seconds to import
    from lightssl.train.fabric import make_fabric

    fabric = make_fabric(recipe.train.precision)
    first = fabric.is_global_zero and not join
    narrator = narrator if fabric.is_global_zero else Silent()
    # All processes write to one folder: the first one names it.
    folder = resumed or Path(fabric.broadcast(str(_new_folder(out, recipe.name)) if first else ""))
    run = Run(folder / SECTION)
    narrator.say(
        f"{question.strategy}: {question.space}, {_budget(question.limits)} at {question.image_size} pixels; "
        f"{recipe.card.title}, scale {recipe.scale}, views of {recipe.views.global_.size} pixels, "
        f"{len(source):,} images of {source.name}, in {run}"
    )
    rank = fabric.global_rank
    task = Task(
        table=table,
        limits=question.limits,
        stock=question.stock,
        seed=recipe.train.seed,
        lab=Laboratory(
            recipe,
            question.searched,
            source,
            supernet_options=question.backbone_options(recipe),
            deployed_options=question.backbone_options(deployed),
            run=run,
            question=question.digest,
            fabric=fabric,
            narrator=narrator,
            may_train=not join,
        ),
        storage=storage or f"sqlite:///{(run.folder / 'candidates.db').resolve()}",
        name=folder.resolve().name,
        question=question.digest,
        worker=uuid4().hex if join else f"process {rank}" if rank else _MAIN,
        narrator=narrator,
    )
    asked = {"question": asdict(question), "data": data, "storage": storage, "options": _plain(options)}
    if resumed is not None:
        check_same_images(run, source)
    if first:
        run.folder.mkdir(parents=True, exist_ok=True)
        open_study(task)  # refuses another search's before anything is trained
    if first and resumed is None:
        run.write_start(dump(recipe), describe_environment(data=data, images=len(source)))
        write_json(run.folder / "search.json", {"asked": asked})
    fabric.barrier()
    try:
        found = strategy(task, **options)
    except Stopped:
        narrator.say(f"Stopped. Go on with: lightssl search --resume {folder}")
        return None
    return _write_results(run, question, asked, table, found) if first else None


def _new_folder(out: Path | str | None, name: str) -> Path:
    """Choose the folder of a new search.

    Raises:
        LightSSLError: It holds a search already.
    """
    folder = new_run(Path(out) if out is not None else None, f"search-{name}").folder
    if (folder / SECTION / "search.json").exists():
        raise LightSSLError(
            f"{folder} already holds a search.",
            f"Continue it with --resume {folder}, or choose another folder with --out.",
        )
    return folder


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int | float) else str(value) for key, value in options.items()}


def _budget(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{limit:,.0f} {name}" for name, limit in limits.items())


# -------------------------------------------------------------------------------------------------------------- results


def _write_results(
    run: Run, question: _Question, asked: dict[str, Any], table: CostTable, found: Sequence[Scored]
) -> dict[str, Any]:
    from lightssl.reports.plots import Spot, pareto  # brings matplotlib
    from lightssl.reports.search import write_search_page

    winner = best(found)
    names = {candidate: name for name, candidate in question.stock.items()}
    rows = [{"number": number, **_row(scored, question, table)} for number, scored in enumerate(_proposed(found))]
    write_text(run.folder / "candidates.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    score = asked["options"]["score"]
    stock = {names[scored.candidate]: _row(scored, question, table) for scored in found if not scored.proposed}
    result: dict[str, Any] = {
        "asked": asked,
        "winner": _row(winner, question, table),
        "stock": stock,
        "candidates": len(rows),
        "recipe": str(run.folder / "winner.yaml"),
        "next": next_command(run, question, asked["data"]),
    }
    recipe = _winner_recipe(question, result["winner"], score)
    write_text(run.folder / "winner.yaml", recipe)

    def spot(row: Mapping[str, Any], name: str = "") -> Spot:
        return Spot({cost: row[cost] for cost in table.names}, row["score"], name)

    picture = pareto(
        list(map(spot, rows)),
        [spot(row, name) for name, row in stock.items()],
        spot(result["winner"]),
        limits=question.limits,
        y_label=f"score: {score}",
    )
    write_bytes(run.folder / "pareto.png", picture)
    shown = sorted(rows, key=lambda row: -row["score"])[:_SHOWN]
    write_search_page(
        run.folder / "search.html",
        title=f"Search in {question.space} for {_budget(question.limits)}",
        asked={**{key: _text(asked["question"][key]) for key in _ASKED}, "data": asked["data"], **asked["options"]},
        verdict=verdict(result),
        picture=picture,
        networks={
            "winner": _parts(winner.candidate, question, table),
            **{name: _parts(candidate, question, table) for name, candidate in question.stock.items()},
        },
        best=[{key: _text(value) for key, value in row.items()} for row in shown],
        recipe=recipe,
        commands=[result["next"]],
    )
    write_json(run.folder / "search.json", result)
    return result


_SHOWN = 20  # candidates in the table of the page
_ASKED = ("strategy", "space", "limits", "image_size", "recipe", "scale", "overrides")


def _proposed(found: Sequence[Scored]) -> list[Scored]:
    return [scored for scored in found if scored.proposed]


def _row(scored: Scored, question: _Question, table: CostTable) -> dict[str, Any]:
    """Return what is written down of a candidate."""
    genes = table.space.encode(scored.candidate)[None]
    prices = dict(zip(table.names, table.prices(genes)[0].tolist(), strict=True))
    share = round(float(budget_shares(table, question.limits, genes)[0]), 4)
    return {"candidate": str(scored.candidate), **prices, "budget_share": share, **scored.scores}


def _winner_recipe(question: _Question, winner: Mapping[str, Any], score: str) -> str:
    """Return a recipe file for the winner, which scales and overrides change as they do any other."""
    candidate = question.searched.parse(winner["candidate"])
    recipe = question.mapping(candidate)
    recipe["card"] = {
        **recipe.get("card", {}),
        "title": f"{recipe['card']['title']}, with a network found by search",
        "in_paper": False,
        "published": {},
        "measured": "Not trained yet.",
    }
    head = [
        f"# {winner['candidate']}, found by lightssl search ({question.strategy}) for {_budget(question.limits)}.",
        f"# {winner['flops']:,} FLOPs at {question.image_size} pixels, {winner['parameters']:,} parameters; "
        f"{score} {winner['score']:.4f}.",
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)


def _parts(candidate: Candidate, question: _Question, table: CostTable) -> "list[Part]":
    """Return what a network is made of, stage by stage."""
    from lightssl.reports.search import Part

    flops = [int(part[0, 0]) for part in table.parts(table.space.encode(candidate)[None])]
    stages = candidate.topology.split()
    titles = ["before", *(str(number) for number in range(1, len(stages) + 1)), "after"]
    return [Part(*part) for part in zip(titles, ["", *stages, ""], flops, strict=True)]


def verdict(result: Mapping[str, Any]) -> str:
    """Say what a search found, in a sentence or two."""
    winner, score = result["winner"], result["asked"]["options"]["score"]
    size = result["asked"]["question"]["image_size"]
    stock = ", ".join(
        f"{name} {row['score']:.4f} with {row['flops'] / 1e6:,.1f}M FLOPs" for name, row in result["stock"].items()
    )
    return (
        f"{winner['candidate']}: {winner['flops'] / 1e6:,.1f}M FLOPs at {size} pixels, "
        f"{winner['parameters'] / 1e6:,.2f}M parameters, {100 * winner['budget_share']:.1f} % of the budget. "
        f"Its {score} of {winner['score']:.4f} is the best of {result['candidates']:,} candidates; {stock}."
    )


def next_command(run: Run, question: _Question, data: str) -> str:
    """Return the command that trains the winner as the supernet was."""
    words = ["lightssl", "pretrain", "--recipe", str(run.folder / "winner.yaml"), "--scale", question.scale]
    words += ["--data", data] if data != SAMPLE else []
    words += [word for text in question.recipe_overrides for word in ("--set", text)]
    return shlex.join(words)


def pretrain_winner(result: Mapping[str, Any], *, narrator: Narrator | None = None) -> Run:
    """Train the winner of a search in the folder of the search: see :func:`lightssl.pipeline.pretrain`."""
    asked = result["asked"]
    question = _Question(**asked["question"])
    return pretrain(
        result["recipe"],
        data=asked["data"],
        scale=question.scale,
        overrides=question.recipe_overrides,
        out=Path(result["recipe"]).parent.parent,
        narrator=narrator,
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else str(value)
