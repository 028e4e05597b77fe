"""``views preview``: what a recipe shows a network, before anything is trained."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightssl.config.load import PUBLISHED_SCALE, available, compose, load_recipe, named_plan, on_plan, validate
from lightssl.config.schema import Recipe
from lightssl.data.decode import UndecodableImage, decode, image_size
from lightssl.data.sources import Source, open_source
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.files import atomic_path, write_bytes, write_json
from lightssl.pipeline.building import SAMPLE
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.types import BadImage
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan
from lightssl.views.preview import contact_sheet
from lightssl.views.statistics import Spread, ViewStatistics, view_statistics

SHOWN_IMAGES = 6
_KEPT_SIZES = 200  # images of a run whose sizes are kept for its page
DRAWS = 2000  # images whose boxes are drawn: means of shares are then within one part in a hundred

# What a plan is compared with: each method's usual views, and SSLight's.
_COUNTERPARTS = {"sslight": "baseline", "sslight_vit": "baseline_vit"}
_COUNTERPARTS |= {baseline: plan for plan, baseline in _COUNTERPARTS.items()}

T = TypeVar("T")


def preview_views(
    recipe: str = "mobilenetv2_dino",
    *,
    data: str = SAMPLE,
    scale: str = PUBLISHED_SCALE,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    images: int = SHOWN_IMAGES,
    draws: int = DRAWS,
    against: str | None = None,
    out: Path | str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Draw the views of a recipe, and measure how they are distributed beside those of another plan.

    The contact sheet shows what a training with this seed would show in its first epoch. The distributions are of the
    boxes of many images, drawn by their sizes; where there are fewer images, of one epoch after the other.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        data: As for :func:`lightssl.pipeline.pretrain`.
        scale: ``paper``, the published sizes, ``small`` or ``quick``.
        overrides: Texts like ``views.local.size=96``.
        seed: Short for the override ``train.seed``.
        images: How many images the contact sheet shows.
        draws: How many images' boxes to draw.
        against: The shipped view plan to compare with, at the recipe's global size; by default the baseline of
            SSLight's plan, and SSLight's of a baseline.
        out: The contact sheet, ending in ``.png``; by default ``views-RECIPE.png``. The distributions are written
            beside it, as ``.distributions.png``.
        narrator: Told how it goes.

    Returns:
        The pictures, the images that were skipped, and the figures of each plan, the recipe's first.

    Raises:
        LightSSLError: The recipe, the plan or the images are not usable, or a picture cannot be written.
    """
    narrator = narrator or Silent()
    if min(images, draws) < 1:
        raise ConfigError(f"{min(images, draws)} images show nothing.", "Ask for one or more: --images 4")
    if seed is not None:
        overrides = [*overrides, f"train.seed={seed}"]
    chosen = load_recipe(recipe, scale=scale, overrides=overrides)
    sheet_path = Path(out) if out is not None else Path(f"views-{chosen.name}.png")
    if sheet_path.suffix != ".png":
        raise ConfigError(f"{sheet_path} is not a PNG file's name.", "End it in .png")
    plans = _plans(recipe, chosen, against, overrides)
    source = open_source(data, split="train")
    narrator.say(_introduction(chosen, data, source))

    shown, indices, bad = usable_images(source, images, decode)
    sizes, measured, more = usable_images(source, draws, image_size, spare=0)
    bad = list({image.index: image for image in [*bad, *more]}.values())
    for image in bad[:10]:
        narrator.say(f"Skipped {image.name}: {image.reason}")
    if len(bad) > 10:
        narrator.say(f"Skipped {len(bad) - 10:,} more.")
    if not shown or not sizes:
        raise DataError(
            f"None of the {len(bad):,} images of {source.name} that were tried can be used.",
            "Name a folder of images, at any depth, with --data DIR.",
        )
    small = sum(min(size) < chosen.views.global_.size for size in sizes)
    if small:
        narrator.say(
            f"{small:,} of {len(sizes):,} images are smaller than a global view of {chosen.views.global_.size} pixels: "
            "most of their views are enlarged, and show no more detail for it."
        )

    drawn = {name: _draw(plan, dict(zip(measured, sizes, strict=True)), draws) for name, plan in plans.items()}
    with atomic_path(sheet_path) as aside:
        contact_sheet(shown, _maker(chosen), indices=indices).save(aside, format="PNG")
    distributions_path = sheet_path.with_suffix(".distributions.png")
    write_bytes(
        distributions_path, _picture(plans, drawn, f"{draws:,} draws from {len(sizes):,} images of {source.name}")
    )
    return {
        "recipe": chosen.name,
        "scale": chosen.scale,
        "data": source.name,
        "images": len(sizes),
        "draws": draws,
        "seed": chosen.train.seed,
        "contact_sheet": str(sheet_path),
        "distributions": str(distributions_path),
        "skipped": [image._asdict() for image in bad],
        "plans": {name: _figures(plans[name].views, statistics) for name, statistics in drawn.items()},
    }


def keep_views(run: Run, source: Source, recipe: Recipe) -> None:
    """Keep in a run's folder what its page shows of its views: the contact sheet, and sizes of some of its images."""
    images, indices, _ = usable_images(source, SHOWN_IMAGES, decode)
    if images:
        contact_sheet(images, _maker(recipe), indices=indices).save(run.views_path)
    sizes, measured, _ = usable_images(source, _KEPT_SIZES, image_size, spare=0)
    write_json(run.image_sizes_path, {str(index): size for index, size in zip(measured, sizes, strict=True)})


def view_distributions(run: Run) -> bytes | None:
    """Draw how the views of a run are distributed, as PNG, beside the plan that its recipe's is compared with.

    None where the run has no sizes of images, or neither they nor its recipe can be read.
    """
    try:
        recipe = validate(run.recipe(), origin=str(run.recipe_path))
        kept = json.loads(run.image_sizes_path.read_text(encoding="utf-8"))
        sizes = {int(index): (int(height), int(width)) for index, (height, width) in kept.items()}
    except (LightSSLError, OSError, ValueError, TypeError, AttributeError):
        return None
    if not sizes or min(map(min, sizes.values())) < 1:
        return None
    plans = _plans(recipe.name, recipe, None, ()) if recipe.name in available() else {recipe.name: recipe}
    drawn = {name: _draw(plan, sizes, DRAWS) for name, plan in plans.items()}
    return _picture(plans, drawn, f"{DRAWS:,} draws from {len(sizes):,} images")


def usable_images(
    source: Source, count: int, read: Callable[[bytes | np.ndarray], T], *, spare: int = 3
) -> tuple[list[T], list[int], list[BadImage]]:
    """Read some images, spread evenly over a source.

    Args:
        source: The images.
        count: How many.
        read: What to make of an image; raises UndecodableImage where it is none.
        spare: How many times as many again are at hand in place of those that are not usable.

    Returns:
        What was made of each, their positions, and the images that were tried and are not usable.
    """
    found: list[T] = []
    indices: list[int] = []
    bad: list[BadImage] = []
    # First those that are wanted, then those between them.
    for index in _spread(len(source), count, spare):
        if len(found) == count:
            break
        try:
            found.append(read(source.read(index)))
            indices.append(index)
        except UndecodableImage as error:
            bad.append(BadImage(index, source.item_name(index), error.reason))
        except OSError as error:  # gone, or not readable, since the source was listed
            bad.append(BadImage(index, source.item_name(index), f"cannot be read: {error.strerror or error}"))
    return found, indices, bad


def _spread(images: int, count: int, spare: int) -> list[int]:
    """Return the positions of ``count`` images, spread evenly; then of those in between, as far as they are spare."""
    positions = [np.linspace(0, images - 1, min((1 + part) * count, images), dtype=int) for part in (0, spare)]
    return list(dict.fromkeys(np.concatenate(positions).tolist()))


def _plans(name: str, chosen: Recipe, against: str | None, overrides: Sequence[str]) -> dict[str, Recipe]:
    """Return the recipe by the name of its plan, also as it starts if it moves, and one of another plan, if any."""

    def ships(plan: str) -> Recipe:
        return on_plan(name, plan, scale=chosen.scale, overrides=overrides, global_size=chosen.views.global_.size)

    own = named_plan(compose(name), overrides)
    other = against or _COUNTERPARTS.get(own or "")
    label = own or chosen.name
    if own is not None and ships(own).views != chosen.views:
        label = f"{own}, changed"
    first = {"at the start": chosen.model_copy(update={"views": chosen.views.at(0)})} if chosen.views.start else {}
    return {label: chosen} | first | ({other: ships(other)} if other is not None and other != label else {})


def _maker(recipe: Recipe) -> ViewMaker:
    return ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed)


def _introduction(recipe: Recipe, data: str, source: Source) -> str:
    sizes = "the published sizes" if recipe.scale == PUBLISHED_SCALE else f"the sizes of the scale {recipe.scale}"
    where = f"{len(source):,} images of {source.name}"
    if data == SAMPLE:
        where = "the embedded sample, images of 28 pixels. Use your own with --data DIR"
    return f"{recipe.card.title}, at {sizes}, on {where}"


def _draw(recipe: Recipe, sizes: Mapping[int, tuple[int, int]], draws: int) -> ViewStatistics:
    """Measure boxes in images of these heights and widths, by position, in one epoch after the other."""
    keys = [(draw // len(sizes), index) for draw, index in zip(range(draws), cycle(sizes), strict=False)]
    return view_statistics(_maker(recipe), [sizes[index] for _, index in keys], keys)


def _picture(plans: Mapping[str, Recipe], drawn: Mapping[str, ViewStatistics], what: str) -> bytes:
    from lightssl.reports.view_plots import distributions  # brings matplotlib

    headed = {_heading(name, plans[name].views, statistics): statistics for name, statistics in drawn.items()}
    return distributions(headed, title=f"Views of {what}")


def _heading(name: str, plan: ViewPlan, drawn: ViewStatistics) -> str:
    ratio = drawn.pixel_scale_ratio
    return f"{name}: {plan.at(1.0).describe()}" + (f", as drawn {ratio:.2f}" if ratio is not None else "")


def _figures(plan: ViewPlan, drawn: ViewStatistics) -> dict[str, Any]:
    w_global, w_local = plan.weights
    kinds = {
        "global": (plan.global_.count, plan.global_.size, drawn.global_area, drawn.global_pixel_scale),
        "local": (plan.local.count, plan.local.size, drawn.local_area, drawn.local_pixel_scale),
    }
    return {
        "plan": plan.describe(),
        "weights": {"global": w_global, "local": w_local},
        "pixel_scale_ratio": plan.pixel_scale_ratio if plan.local.count else None,
        "pixel_scale_ratio_drawn": drawn.pixel_scale_ratio,
        **{
            kind: {
                "count": count,
                "size": size,
                "area_share": _spread_of(area),
                "pixel_scale": _spread_of(pixel_scale),
                "enlarged_share": float((pixel_scale > 1).mean()),
            }
            for kind, (count, size, area, pixel_scale) in kinds.items()
            if count
        },
        "local_inside_global": _spread_of(drawn.local_inside_global),
        "global_iou": _spread_of(drawn.global_iou),
    }


def _spread_of(values: np.ndarray) -> dict[str, float] | None:
    spread = Spread.of(values)
    return spread._asdict() if spread is not None else None
