"""What a training writes down while it runs: ``metrics.jsonl`` and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lightssl.files import append_json_lines, read_json_lines, write_text


class MetricsLog:
    """Appends one row of numbers for each logged step.

    Args:
        path: The ``metrics.jsonl`` file; TensorBoard events go to ``tensorboard/`` beside it.
        start_step: Rows of this step and later ones are dropped first: a resumed run writes them again.
    """

    def __init__(self, path: Path, *, start_step: int) -> None:
        # Here, not at the top: it imports slowly, and only the first process logs.
        from torch.utils.tensorboard.writer import SummaryWriter

        kept = [row for row in read_json_lines(path) if row["step"] < start_step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._events = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start_step or None)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Write one row; it is on disk when this returns."""
        append_json_lines(self._path, [{"step": step, **row}])
        for name, value in row.items():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
