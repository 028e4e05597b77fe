"""What a training writes down while it runs: ``metrics.jsonl`` and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lightssl.files import write_text


class MetricsLog:
    """Appends one row of numbers for each logged step.

    Args:
        path: The ``metrics.jsonl`` file; TensorBoard events go to ``tensorboard/`` beside it.
        start_step: Rows of this step and later ones are dropped first: a resumed run writes them again.
    """

    def __init__(self, path: Path, *, start_step: int) -> None:
        # Here, not at the top: it imports slowly, and only the first process logs.
        from torch.utils.tensorboard.writer import SummaryWriter

        kept = [row for row in read_metrics(path) if row["step"] < start_step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start_step or None)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Write one row; it is on disk when this returns."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the rows of a ``metrics.jsonl``; a last line cut short by a kill is left out. Empty if there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
