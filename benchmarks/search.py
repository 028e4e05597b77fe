"""What ``lightssl search --flops 300M`` takes and gives: seconds, memory and the winner, at the quick scale::

python -m benchmarks.search
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.commands import measure
from lightssl.files import read_json_lines, write_json
from lightssl.machine import describe_machine, versions

RESULT = Path(__file__).parent / "results" / "search.json"
STRATEGIES = ("evolve", "differentiable", "random", "zero-cost")


def main() -> None:
    """Search with every strategy, one after the other, and write the table."""
    rows = []
    for strategy in STRATEGIES:
        rows.append(search(strategy))
        print(json.dumps(rows[-1]), flush=True)
        write_json(
            RESULT,
            {
                "what": "lightssl search --flops 300M, scale quick, on the embedded sample",
                "measured": datetime.now(UTC).date().isoformat(),
                "machine": describe_machine(),
                "versions": versions(),
                "rows": rows,
            },
        )


def search(strategy: str) -> dict[str, Any]:
    """Run one search."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        taken = measure(["search", "--flops", "300M", "--strategy", strategy, "--out", str(run)])
        result = json.loads((run / "search" / "search.json").read_text(encoding="utf-8"))
        shares = [row["budget_share"] for row in read_json_lines(run / "search" / "candidates.jsonl")]
    return {
        "strategy": strategy,
        **taken,
        "options": result["asked"]["options"],
        "candidates": result["candidates"],
        "budget_shares": [min(shares), max(shares)],
        "winner": result["winner"],
        "stock": result["stock"],
    }


if __name__ == "__main__":
    main()
