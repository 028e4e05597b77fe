"""``study grid``: the networks of a study, and what they cost."""

from collections.abc import Sequence
from typing import Any

from lightssl.backbones.cost import Cost
from lightssl.config.grids import load_grid
from lightssl.config.schema import Recipe
from lightssl.data.sources import open_source
from lightssl.errors import ConfigError, LightSSLError
from lightssl.pipeline.building import SAMPLE
from lightssl.pipeline.study_question import Training
from lightssl.pipeline.training import plan_of
from lightssl.progress import Narrator, Silent
from lightssl.study.cost import Condition, count_member
from lightssl.study.members import Member

RECIPE = "resnet18_simclr_cifar"  # of the objective that One Network trains with


def study_grid(
    grid: str,
    *,
    image_size: int = 224,
    where: Sequence[str] = (),
    limit: int | None = None,
    timing: bool = True,
    recipe: str = RECIPE,
    data: str = SAMPLE,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """List the members of a grid with what they cost, and estimate what pre-training all of them would take here.

    Of members that differ in depths and widths alone, the smallest and the largest are trained for a few steps, each in
    a process of its own, and the time of a step of the others is interpolated between them over FLOPs. The estimate is
    of one member after the other on a machine like this one and as busy, without evaluations.

    Args:
        grid: A name in :data:`lightssl.study.GRIDS`, or a YAML file: see :func:`lightssl.config.grids.load_grid`.
        image_size: Pixels of the square image that FLOPs are counted of.
        where: Conditions that members have to meet, such as ``flops<2G``.
        limit: Take so many of them at most, the first ones.
        timing: Whether to estimate. Without, the arguments below do not matter.
        recipe: How members are trained: name of a shipped recipe, or path of a YAML file. Its backbone is replaced.
        data: As for :func:`lightssl.pipeline.pretrain`.
        scale: As for :func:`lightssl.pipeline.pretrain`.
        overrides: Texts like ``train.batch_size=64``.
        narrator: Told how it goes.

    Returns:
        ``members``: of each its ``name``, ``backbone`` as in a recipe, ``depths`` (blocks of each stage, or None),
        ``flops`` and ``parameters``; and ``estimate``, None without timing: the ``hours`` of all members, those that
        were ``timed``, and the largest of their peaks of memory, ``memory_gib`` of the training process without those
        that make views, and ``device_memory_gib`` on a GPU.

    Raises:
        LightSSLError: The grid, a condition or the recipe cannot be used, or no member is left.
    """
    narrator = narrator or Silent()
    chosen = choose_members(grid, image_size, where, limit, narrator)
    estimate = None
    if timing:
        training = Training.of(recipe, data=data, scale=scale, overrides=overrides)
        estimate = _estimate(training, data, chosen, narrator)
    return {
        "grid": grid,
        "image_size": image_size,
        "members": [
            {
                "name": member.name,
                "backbone": member.section,
                "depths": list(member.depths) if member.depths is not None else None,
                **cost._asdict(),
            }
            for member, cost in chosen
        ],
        "estimate": estimate,
    }


def choose_members(
    grid: str, image_size: int, where: Sequence[str], limit: int | None, narrator: Narrator
) -> list[tuple[Member, Cost]]:
    """Return the members of a grid that meet conditions, with what they cost: arguments as of :func:`study_grid`."""
    conditions = [Condition.parse(text) for text in where]
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} leaves no member.", "Ask for one or more.")
    members = load_grid(grid)
    if not conditions:  # those left out need not be counted
        members = members[:limit]
    costs = _costs(members, image_size, narrator)
    chosen = [
        (member, cost)
        for member, cost in zip(members, costs, strict=True)
        if all(condition.holds(cost) for condition in conditions)
    ]
    if not chosen:
        ranges = (
            f"{name} from {min(found):,} to {max(found):,}"
            for name, found in zip(Cost._fields, zip(*costs, strict=True), strict=True)
        )
        raise ConfigError(f"No member is left by {' and '.join(where)}.", f"They have {', '.join(ranges)}.")
    return chosen[:limit]


def _costs(members: Sequence[Member], image_size: int, narrator: Narrator) -> list[Cost]:
    if image_size < 1:
        raise ConfigError(f"Images of {image_size} pixels are none.", "Ask for a larger size: --image-size 224")
    costs, problems = [], []
    with narrator.work("Counting FLOPs", len(members)) as bar:
        for done, member in enumerate(members, 1):
            try:
                costs.append(count_member(member, image_size))
            except ConfigError as error:
                problems.append(f"{member.name}: {' '.join(str(error).splitlines())}")
            bar(done, member.name)
    if problems:
        raise ConfigError(f"Of the members, {len(problems)} cannot be used at {image_size} pixels:", None, problems)
    return costs


def _estimate(
    training: Training, data: str, chosen: Sequence[tuple[Member, Cost]], narrator: Narrator
) -> dict[str, Any]:
    """Time the smallest and the largest of each family, and say what all members take."""
    images = len(open_source(data, split="train"))
    families: dict[str, list[tuple[Member, Cost]]] = {}
    for member, cost in chosen:
        families.setdefault(member.family, []).append((member, cost))
    ends = {family: _ends(found) for family, found in families.items()}
    # All before any is timed: what is wrong with one shows at once.
    recipes = {member.name: training.recipe_of(member) for pair in ends.values() for member, _ in pair}
    timed: dict[str, dict[str, Any]] = {}
    with narrator.work("Timing steps", len(recipes)) as bar:
        for name, recipe in recipes.items():
            bar(len(timed), name)
            timed[name] = _time(name, recipe, data, images)
        bar(len(timed))
    hours = sum(
        _between([(cost.flops, timed[end.name]["hours"]) for end, cost in ends[family]], cost.flops)
        for family, found in families.items()
        for _, cost in found
    )
    peaks = {
        key: max((row[key] for row in timed.values() if row[key] is not None), default=None)
        for key in ("memory_gib", "device_memory_gib")
    }
    return {
        "recipe": training.recipe,
        "scale": training.scale,
        "data": data,
        "images": images,
        "hours": hours,
        **peaks,
        "timed": list(timed.values()),
    }


def _time(name: str, recipe: Recipe, data: str, images: int) -> dict[str, Any]:
    from lightssl.pipeline.step_timing import WARM_UP, time_steps

    steps = plan_of(recipe, images).total_steps
    if steps <= WARM_UP:
        raise ConfigError(
            f"A training of {steps} steps is too short to be timed.",
            "Make train.duration longer, or leave the timing out with --no-timing.",
        )
    try:
        found = time_steps(recipe, data)
    except LightSSLError as error:
        raise type(error)(f"{name} cannot be trained: {error.message}", error.hint) from error
    return {
        "name": name,
        "steps": steps,
        "step_seconds": found.seconds,
        "images_per_s": recipe.train.batch_size / found.seconds,
        "hours": steps * found.seconds / 3600,
        "memory_gib": found.memory_gib,
        "device_memory_gib": found.device_memory_gib,
    }


def _ends(family: Sequence[tuple[Member, Cost]]) -> list[tuple[Member, Cost]]:
    """Return the smallest and the largest by FLOPs, and by parameters where those are equal; one if there is one."""
    ends = [choose(family, key=lambda pair: pair[1]) for choose in (min, max)]
    return ends if ends[0] is not ends[1] else ends[:1]


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Interpolate between two points, or take the mean of both where they lie above each other, or the only one."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    share = (x - x0) / (x1 - x0) if x1 > x0 else 0.5
    return y0 + share * (y1 - y0)
