"""What a search leaves behind: a table, a picture, a page, and the winner as a recipe."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from lightssl.deploy.prediction import COVERAGE
from lightssl.files import write_bytes, write_json, write_text
from lightssl.pipeline.building import SAMPLE
from lightssl.pipeline.question import Question
from lightssl.runs import Run
from lightssl.search.budget import budget_shares
from lightssl.search.cost import LATENCY, CostTable
from lightssl.search.latency import Device
from lightssl.search.spaces import Candidate
from lightssl.search.task import Scored, best

if TYPE_CHECKING:
    from lightssl.reports.search import Part

_SHOWN = 20  # candidates in the table of the page
_ASKED = ("strategy", "space", "recipe", "scale")


def write_results(
    run: Run,
    question: Question,
    asked: dict[str, Any],
    table: CostTable,
    device: Device | None,
    found: Sequence[Scored],
) -> dict[str, Any]:
    """Write everything about a finished search to its folder, and return what ``search.json`` holds."""
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
        **({} if device is None else {"latency": _latency(winner.candidate, table, device)}),
        "recipe": str(run.folder / "winner.yaml"),
        "next": next_command(run, question, asked["data"]),
    }
    recipe = _winner_recipe(question, result, score)
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
        title=f"Search in {question.space} for {question.budget}",
        asked={
            "budget": f"{question.budget} at {question.image_size} pixels",
            **({} if device is None else {"latency": f"predicted for {device.place}; {device.trust}"}),
            **{key: _text(asked["question"][key]) for key in _ASKED},
            "overrides": ", ".join(question.overrides) or "none",
            "data": asked["data"],
            **asked["options"],
        },
        verdict=verdict(result),
        picture=picture,
        networks={
            "winner": _parts(winner.candidate, question, table),
            **{name: _parts(candidate, question, table) for name, candidate in question.stock.items()},
        },
        # The long one last, so that the others are seen.
        best=[{key: _text(row[key]) for key in sorted(row, key="candidate".__eq__)} for row in shown],
        recipe=recipe,
        commands=[result["next"]],
    )
    write_json(run.folder / "search.json", result)
    return result


def _proposed(found: Sequence[Scored]) -> list[Scored]:
    return [scored for scored in found if scored.proposed]


def _row(scored: Scored, question: Question, table: CostTable) -> dict[str, Any]:
    """Return what is written down of a candidate."""
    genes = table.space.encode(scored.candidate)[None]
    share = round(float(budget_shares(table, question.limits, genes)[0]), 4)
    return {
        "candidate": str(scored.candidate),
        **table.named(scored.candidate),
        "budget_share": share,
        **scored.scores,
    }


def _latency(candidate: Candidate, table: CostTable, device: Device) -> dict[str, Any]:
    """Return what is predicted of the winner, by names of :class:`lightssl.deploy.latency.Prediction`."""
    latency_ms = table.named(candidate)[LATENCY]
    low, high = device.interval(latency_ms)
    return {
        "device": device.device,
        "runtime": device.runtime,
        "precision": device.precision,
        "threads": device.fit.threads,
        "latency_ms_p50": latency_ms,
        "latency_ms_low": low,
        "latency_ms_high": high,
        "interval_coverage": COVERAGE,
        "held_out_error_percent": device.fit.held_out_error_percent,
        "flops_error_percent": device.fit.flops_error_percent,
    }


def _winner_recipe(question: Question, result: Mapping[str, Any], score: str) -> str:
    """Return a recipe file for the winner, which scales and overrides change as they do any other."""
    winner = result["winner"]
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
        f"# {winner['candidate']}, found by lightssl search ({question.strategy}) for {question.budget}.",
        f"# {winner['flops']:,} FLOPs at {question.image_size} pixels, {winner['parameters']:,} parameters; "
        f"{score} {winner['score']:.4f}.",
        *([f"# {predicted(result)}."] if "latency" in result else []),
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)


def _parts(candidate: Candidate, question: Question, table: CostTable) -> "list[Part]":
    """Return what a network is made of, stage by stage."""
    from lightssl.reports.search import Part

    prices = [dict(zip(table.names, part[0], strict=True)) for part in table.parts(table.space.encode(candidate)[None])]
    stages = candidate.topology.split()
    titles = ["before", *(str(number) for number in range(1, len(stages) + 1)), "after"]
    return [
        Part(title, what, int(price["flops"]), price.get(LATENCY))
        for title, what, price in zip(titles, ["", *stages, ""], prices, strict=True)
    ]


def predicted(result: Mapping[str, Any]) -> str:
    """Say how long the winner of a search is predicted to take."""
    of = result["latency"]
    ms, low, high = (f"{of[f'latency_ms_{name}']:.3g}" for name in ("p50", "low", "high"))
    return (
        f"predicted {ms} ms ({low} to {high}, for {100 * of['interval_coverage']:g} % of networks) "
        f"on {of['device']}, {of['runtime']}, threads: {of['threads']}"
    )


def verdict(result: Mapping[str, Any]) -> str:
    """Say what a search found, in a sentence or two."""
    winner, score = result["winner"], result["asked"]["options"]["score"]
    size = result["asked"]["question"]["image_size"]
    stock = ", ".join(
        f"{name} {row['score']:.4f} with {row['flops'] / 1e6:,.1f}M FLOPs" for name, row in result["stock"].items()
    )
    return (
        f"{winner['candidate']}: {winner['flops'] / 1e6:,.1f}M FLOPs at {size} pixels, "
        f"{winner['parameters'] / 1e6:,.2f}M parameters, {100 * winner['budget_share']:.1f} % of the budget"
        f"{'; ' + predicted(result) if 'latency' in result else ''}. "
        f"Its {score} of {winner['score']:.4f} is the best of {result['candidates']:,} candidates; {stock}."
    )


def next_command(run: Run, question: Question, data: str) -> str:
    """Return the command that trains the winner as the supernet was."""
    words = ["lightssl", "pretrain", "--recipe", str(run.folder / "winner.yaml"), "--scale", question.scale]
    words += ["--data", data] if data != SAMPLE else []
    words += [word for text in question.recipe_overrides for word in ("--set", text)]
    return shlex.join(words)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else str(value)
