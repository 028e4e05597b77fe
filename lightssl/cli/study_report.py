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
    networks, scenarios = result["networks"], [one["name"] for one in result["scenarios"]]
    rest = len(networks) - _SHOWN
    print_table(
        f"The best of {len(networks)} by mean rank; top-1 in percent, {result['task']}",
        ["network", "FLOPs", "parameters", "mean rank", *scenarios],
        [
            [
                row["name"],
                f"{row['flops'] / 1e6:,.1f}M",
                f"{row['parameters'] / 1e6:,.2f}M",
                f"{row['mean_rank']:.1f}",
                *(f"{row['top1'][scenario]:.1f}" for scenario in scenarios),
            ]
            for row in networks[:_SHOWN]
        ],
    )
    if rest > 0:
        console.print(f"and {rest} more", markup=False)
    for finding in result["verdict"]:
        console.print(f"\n{finding['claim']}: {finding['state']}", style="bold", markup=False)
        console.print(finding["text"], markup=False)
    for what, found in result["left_out"].items():
        if found:
            console.print(f"\n{what.capitalize()} left out: {', '.join(one['name'] for one in found)}", markup=False)
    console.print(f"\n{result['page']}", markup=False)
