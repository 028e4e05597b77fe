"""What a sweep leaves behind: a page, a picture, figures, and the recommended plan as a recipe."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

import yaml

from lightssl.config.load import dump
from lightssl.errors import TrainingError
from lightssl.files import write_bytes, write_json, write_text
from lightssl.pipeline.building import SAMPLE
from lightssl.pipeline.sweep_question import SCORES, SweepQuestion, run_name
from lightssl.runs import Run
from lightssl.search.effects import Effect, effect_of, seed_spread
from lightssl.search.points import Measured
from lightssl.search.sweep import Point, plan_at, shown

_NAMED = 5  # points that the verdict names at most
_REMARKS = {"complete": "", "pruned": "given up early: the scores so far were among the lower half", "failed": "failed"}


def write_results(
    run: Run, question: SweepQuestion, asked: dict[str, Any], measured: Sequence[Measured], folder: str
) -> dict[str, Any]:
    """Write everything about a finished sweep to its folder, and return what ``sweep.json`` holds.

    Raises:
        TrainingError: No point was measured to the end.
    """
    from lightssl.reports.effects import Level, effects  # brings matplotlib
    from lightssl.reports.sweep import write_sweep_page

    complete = [one for one in measured if one.state == "complete"]
    if not complete:
        raise TrainingError(
            f"No point of the sweep was measured: {measured[0].error}", "Lower the learning rate, or train longer."
        )
    best = max(complete, key=_mean_score)
    rows = [_row(one, question) for one in measured]
    own = question.schedule.own
    found = {axis: effect_of(axis, measured, own, alone=question.design == "factor") for axis in question.axes}
    spread = seed_spread(measured)
    recipe = _recommended_recipe(question, best)
    path = run.folder / "recommended.yaml"
    result: dict[str, Any] = {
        "asked": asked,
        "points": rows,
        "effects": {axis: {"own": own[axis], "values": list(map(asdict, levels))} for axis, levels in found.items()},
        "seed_spread": spread,
        "recommended": next(row for row in rows if row["point"] == best.point.name),
        "verdict": verdict(question, measured, best, spread),
        "recipe": str(path),
        "next": shlex.join(["lightssl", "pretrain", "--recipe", str(path), *_data_words(asked["data"])]),
    }
    write_text(path, recipe)
    picture = effects(
        {
            axis: [Level(shown(e.value), e.mean, e.low, e.high, e.value == own[axis]) for e in levels]
            for axis, levels in found.items()
        },
        y_label=_label(question),
    )
    write_bytes(run.folder / "sweep.png", picture)
    write_sweep_page(
        run.folder / "sweep.html",
        title=f"Views of {question.recipe}: a sweep of {', '.join(question.axes)}",
        verdict=result["verdict"],
        picture=picture,
        notes=_notes(question, found),
        points=[_shown_row(row) for row in rows],
        recommended=best.point.name,
        asked=_shown_question(question, asked["data"]),
        command=result["next"],
        repeats=[
            shlex.join(["lightssl", "views", "sweep", "--resume", folder, "--point", run_name(one.point, seed)])
            for one in measured
            for seed in question.all_seeds
        ],
        recipe=recipe,
    )
    write_json(run.folder / "sweep.json", result)
    return result


def _mean_score(one: Measured) -> float:
    return mean(result["score"] for result in one.results)


def _row(one: Measured, question: SweepQuestion) -> dict[str, Any]:
    """Return what is written down of a point."""
    row: dict[str, Any] = {
        "point": one.point.name,
        "changes": dict(one.point.changes),
        "plan": plan_at(question.own.views, one.point).describe(),
        "state": one.state,
        "flops_per_image": question.flops(one.point),
    }
    if one.state == "complete":
        names = one.results[0]["scores"]
        row |= {
            "score": _mean_score(one),
            "by_seed": {str(result["seed"]): result["score"] for result in one.results},
            "scores": {name: mean(result["scores"][name] for result in one.results) for name in names},
            "steps": one.results[0]["steps"],
            "images_per_s": median(result["images_per_s"] for result in one.results),
            "minutes": mean(result["minutes"] for result in one.results),
        }
    elif one.parts:
        row["last_score"], row["parts_done"] = one.parts[max(one.parts)], max(one.parts)
    if one.error:
        row["error"] = one.error
    return row


def _shown_row(row: Mapping[str, Any]) -> dict[str, str]:
    state = _REMARKS[row["state"]]
    if "error" in row:
        state = f"{state}: {row['error']}"
    if "last_score" in row:
        state = f"{state} (the last one: {_figure(row['last_score'])})"
    return {
        "point": row["point"],
        "score": _figure(row["score"]) if "score" in row else "",
        "by seed": ", ".join(map(_figure, row.get("by_seed", {}).values())),
        "FLOPs of an image's views": f"{row['flops_per_image'] / 1e6:,.1f}M",
        "steps": f"{row['steps']:,}" if "steps" in row else "",
        "images/s": f"{row['images_per_s']:,.0f}" if "images_per_s" in row else "",
        "minutes": f"{row['minutes']:.1f}" if "minutes" in row else "",
        "views": row["plan"],
        "remarks": state,
    }


def _shown_question(question: SweepQuestion, data: str) -> dict[str, str]:
    return {
        "recipe": question.recipe,
        "scale": question.scale,
        "overrides": ", ".join(question.overrides) or "none",
        "data": data,
        "axes": "; ".join(f"{axis} {', '.join(map(shown, values))}" for axis, values in question.axes.items()),
        "design": f"guided, {question.trials} trials" if question.design == "guided" else question.design,
        "score": f"{question.score}: {SCORES[question.score]}",
        "seeds": ", ".join(map(str, question.all_seeds)),
        "cost": "equal FLOPs over all views" if question.equal_cost else "equal steps",
        "pruning": "successive halving" if question.pruning else "none",
    }


def _notes(question: SweepQuestion, found: Mapping[str, Sequence[Effect]]) -> list[str]:
    notes = [
        "Points are means over seeds, bars reach from the lowest to the highest seed, and diamonds mark the recipe's "
        "own value. FLOPs are those of the backbone over all views of one image; images/s and minutes are of a run.",
        f"Score: {SCORES[question.score]}. Higher is better. No point was trained on these images.",
    ]
    if question.design == "factor":
        notes.append("Along each axis, everything else is as in the recipe: effects of two changes need not add up.")
    else:
        notes.append("Each value is the mean over all points that have it, whatever they have on the other axes.")
        if question.pruning or question.design == "guided":
            notes.append(
                "Not all combinations were measured to the end, so values are not compared over the same others: "
                "read the table for what is certain."
            )
    missing = [
        axis for axis, levels in found.items() if not any(e.value == question.schedule.own[axis] for e in levels)
    ]
    if missing:
        notes.append(f"No value is the recipe's own on: {', '.join(missing)}.")
    return notes


def verdict(question: SweepQuestion, measured: Sequence[Measured], best: Measured, spread: float | None) -> str:
    """Say what a sweep found, and how sure that is."""
    complete = [one for one in measured if one.state == "complete"]
    seeds = len(question.all_seeds)
    top = _mean_score(best)
    plan = plan_at(question.own.views, best.point).describe()
    sentences = [
        f"Recommended: {best.point.name}, that is {plan}. Its {_label(question)} of {_figure(top)} is the best mean of "
        f"{len(complete)} points, each trained with {seeds} seed{'s' * (seeds > 1)}."
    ]
    own = next((one for one in complete if one.point == Point()), None)
    others = sorted((one for one in complete if one is not best), key=_mean_score, reverse=True)
    rival = own if own is not None and own is not best else next(iter(others), None)
    if rival is not None:
        gap = top - _mean_score(rival)
        name = "the recipe's own plan" if rival is own else f"the next, {rival.point.name}"
        sentences.append(f"It is {_figure(gap)} above {name}." if gap else f"It is equal to that of {name}.")
        if spread is None:
            sentences.append(
                "With one seed, nothing is known of how far chance alone moves a score: use --seeds 0,1,2."
            )
        elif gap <= spread:
            sentences.append(
                f"That is within the spread of seeds ({_figure(spread)}, a standard deviation): this sweep does not "
                f"tell the two apart."
            )
        else:
            sentences.append(f"That is more than the spread of seeds ({_figure(spread)}, a standard deviation).")
    near = [one.point.name for one in others if spread is not None and top - _mean_score(one) <= spread]
    if near:
        rest = f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
        sentences.append(f"Within that spread of the best: {', '.join(near[:_NAMED])}{rest}.")
    for state, said in (("pruned", "given up early"), ("failed", "not measured, for an error")):
        count = sum(one.state == state for one in measured)
        if count:
            sentences.append(f"{count} {'points were' if count > 1 else 'point was'} {said}.")
    return " ".join(sentences)


def _recommended_recipe(question: SweepQuestion, best: Measured) -> str:
    """Return a recipe file, resolved at the scale of the sweep, with the plan of the best point."""
    recipe = question.resolved.model_copy(update={"views": plan_at(question.resolved.views, best.point)})
    values = dump(recipe)
    changed = best.point != Point()
    values["name"] = f"{question.recipe}_recommended"
    values["card"] |= {
        "title": f"{values['card']['title']}{', with the views that a sweep recommends' * changed}",
        "in_paper": values["card"]["in_paper"] and not changed,
        "published": {} if changed else values["card"]["published"],
        "measured": f"{_label(question)} {_figure(_mean_score(best))} on held-out images, after "
        f"{best.results[0]['steps']:,} steps of {recipe.train.batch_size} images.",
    }
    head = (
        f"# {question.recipe} at scale {question.scale} with the views of the point {best.point.name}: "
        "recommended by lightssl views sweep.\n"
        f"# Every value is filled in, so no scale is laid over it: it is trained at scale {question.scale}.\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _label(question: SweepQuestion) -> str:
    return "-loss" if question.score == "loss" else question.score


def _data_words(data: str) -> list[str]:
    return ["--data", data] if data != SAMPLE else []


def _figure(value: float) -> str:
    return f"{value:.4g}"
