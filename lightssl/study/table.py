"""The table of a study: what each network came to in each scenario, in a file that other programs read."""

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import Cost
from lightssl.errors import LightSSLError
from lightssl.files import atomic_path
from lightssl.study.members import Member

_WIDTHS = ("width", "width_factor")  # options of backbones that make all of their layers wider
_NOT_IN_FAMILY = ("topology", "image_size", *_WIDTHS)


@dataclass(frozen=True)
class Row:
    """What a network that was trained with one recipe and one seed came to in one scenario, or why it did not."""

    member: str  # its name in the grid
    family: str  # as of family_of
    backbone: str  # its name in BACKBONES
    depths: tuple[int, ...] | None  # blocks of each stage
    width: float | None  # as of width_of
    flops: int
    parameters: int
    recipe: str
    method: str
    seed: int
    scenario: str  # data as the user named them
    task: str  # the evaluation
    top1: float | None  # percent of the test images
    error: str | None = None  # why there is no accuracy
    cv_top1: float | None = None  # percent, by cross-validation on training images
    minutes: float | None = None  # of the pre-training


# Types of pyarrow, by column.
_TYPES = {
    "member": "string",
    "family": "string",
    "backbone": "string",
    "depths": "list",
    "width": "float64",
    "flops": "int64",
    "parameters": "int64",
    "recipe": "string",
    "method": "string",
    "seed": "int64",
    "scenario": "string",
    "task": "string",
    "top1": "float64",
    "error": "string",
    "cv_top1": "float64",
    "minutes": "float64",
}
_NULLABLE = {"depths", "width", "top1", "error", "cv_top1", "minutes"}


def facts_of(member: Member, cost: Cost) -> dict[str, Any]:
    """Return the columns of a :class:`Row` that are the same for all results of a member."""
    return {
        "member": member.name,
        "family": family_of(member),
        "backbone": member.backbone,
        "depths": member.depths,
        "width": width_of(member),
        **cost._asdict(),
    }


def family_of(member: Member) -> str:
    """Name what members share that differ in depths and widths alone: ``resnet bottleneck``, ``mobilenetv2``."""
    options = ((name, value) for name, value in member.options.items() if name not in _NOT_IN_FAMILY)
    return " ".join([member.backbone, *(_option(name, value) for name, value in options)])


def _option(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {value}"


def width_of(member: Member) -> float | None:
    """Return the factor by which all layers are wider than a backbone states; None where it has none."""
    # What a member leaves open is as the backbone has it: a stock network is one of the widths of its kind.
    options = inspect.signature(BACKBONES[member.backbone]).parameters
    for name in _WIDTHS:
        if name in options:
            return float(member.options.get(name, options[name].default))
    return None


# --------------------------------------------------------------------------------------------------------------- files


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a Parquet table, a column for each field of :class:`Row`, in one piece.

    Raises:
        LightSSLError: It cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    found = list(rows)
    columns = {name: [getattr(row, name) for row in found] for name in _TYPES}
    table = pa.table(columns, schema=_schema())
    with atomic_path(path) as aside:
        parquet.write_table(table, aside)


def read_table(path: Path) -> list[Row]:
    """Read what :func:`write_table` wrote, in its order.

    Raises:
        LightSSLError: There is none, or it is damaged, has other columns, or has a result twice.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        raise LightSSLError(
            f"{path.parent} holds no results of a study: {path.name} is missing.",
            "Name the folder that 'lightssl study run' wrote.",
        )
    try:
        # As a file by itself: read_table takes the names of folders such as seed=0 for columns; given an open file, it
        # leaves threads that want Python's lock, which aborts a program that ends just then.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise LightSSLError(f"{path} cannot be read: {error}", _AGAIN) from error
    _check_columns(path, table.column_names)
    try:
        rows = [_row(values) for values in table.select(list(_TYPES)).cast(_schema()).to_pylist()]
    except (pa.ArrowException, ValueError) as error:
        raise LightSSLError(f"{path} holds something else than results of a study: {error}", _AGAIN) from error
    _check_once(path, rows)
    return rows


_AGAIN = "Let 'lightssl study run' write it again: what was trained and evaluated is kept."


def _schema() -> Any:
    import pyarrow as pa

    def type_of(name: str) -> Any:
        return pa.list_(pa.int64()) if name == "list" else pa.type_for_alias(name)

    return pa.schema([pa.field(name, type_of(kind), nullable=name in _NULLABLE) for name, kind in _TYPES.items()])


def _check_columns(path: Path, names: list[str]) -> None:
    known = [field.name for field in fields(Row)]
    problems = [
        f"{what} {', '.join(found)}"
        for what, found in (
            ("it lacks", [name for name in known if name not in names]),
            ("it has", [name for name in names if name not in known]),
        )
        if found
    ]
    if problems:
        raise LightSSLError(f"{path} has other columns than a study's results: {' and '.join(problems)}.", _AGAIN)


def _row(values: Mapping[str, Any]) -> Row:
    found = dict(values)
    if found["depths"] is not None:
        found["depths"] = tuple(found["depths"])
    if found["top1"] is not None and not math.isfinite(found["top1"]):  # one that failed, though it did not say so
        found |= {"top1": None, "error": found["error"] or f"the accuracy is {found['top1']}"}
    return Row(**found)


def _check_once(path: Path, rows: Iterable[Row]) -> None:
    seen = set()
    for row in rows:
        key = (row.member, row.recipe, row.seed, row.scenario, row.task)
        if key in seen:
            raise LightSSLError(
                f"{path} has a result twice: {row.member} with {row.recipe}, seed {row.seed}, {row.task} on "
                f"{row.scenario}.",
                _AGAIN,
            )
        seen.add(key)
