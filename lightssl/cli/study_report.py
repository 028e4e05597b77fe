"""``lightssl study report``: what a study says of its networks."""

from typing import Any

from lightssl.cli.options import JSONOption, StudyArgument
from lightssl.cli.terminal import Terminal, console, print_json, print_table

_SHOWN = 10  # networks of a report


def report(
    folder: StudyArgument = None,
    json: JSONOption = False,
) -> None:
    """Write one self-contained HTML page about a study: what it says of the networks, and how sure that is.

    The page, report.html, its figures and all numbers, report.json, go to the folder's study folder. A study that is
    still under way is reported as far as it is.
    """
    from lightssl import pipeline

    print_report(pipeline.study_report(folder, narrator=Terminal()), json)


def print_report(result: dict[str, Any], json: bool) -> None:
    """Print what a study says, for people or for another program."""
    if json:
        print_json(result)
        return
    for finding in [finding for finding in result["verdict"] if finding["state"] != "not asked"]:
        console.print(f"{finding['claim']}: {finding['state']}", style="bold", markup=False)
        console.print(f"{finding['text']}\n", markup=False)
    networks = result["networks"]
    rest = f", and {len(networks) - _SHOWN} more" if len(networks) > _SHOWN else ""
    print_table(
        f"By mean rank of {result['task']}{rest}",
        ["network", "FLOPs", "parameters", "mean rank", "best in"],
        [
            [
                row["name"],
                f"{row['flops'] / 1e6:,.1f}M",
                f"{row['parameters'] / 1e6:,.2f}M",
                f"{row['mean_rank']:.1f}",
                f"{sum(one['winner'] == row['name'] for one in result['scenarios'])} of {len(result['scenarios'])}",
            ]
            for row in networks[:_SHOWN]
        ],
    )
    print_table(
        "By scenario",
        ["scenario", "best network", "top-1, %", "spread of seeds"],
        [
            [
                one["label"],
                one["winner"],
                f"{one['top1']:.1f}",
                "unknown" if one["seed_spread"] is None else f"{one['seed_spread']:.2f}",
            ]
            for one in result["scenarios"]
        ],
    )
    for what, found in result["left_out"].items():
        if found:
            console.print(f"{what.capitalize()} left out: {', '.join(one['name'] for one in found)}", markup=False)
    console.print(f"Page: {result['page']}", markup=False)
