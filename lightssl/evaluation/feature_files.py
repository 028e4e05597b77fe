"""Features in a file that other programs read: part after part, so that any number of images fits in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from lightssl.errors import ConfigError
from lightssl.files import atomic_path


class Rows(NamedTuple):
    """Features of some images, with what is known of them."""

    paths: list[str]  # N, as the source calls them
    labels: list[str] | None  # N, if the images are labelled
    features: np.ndarray  # float32 [N, D]


def writer_of(path: Path) -> Callable[[Path, Sequence[int], Iterable[Rows]], None]:
    """Return what writes a kind of file: ``(path, (N, D), parts)``.

    Raises:
        ConfigError: It is no kind that can be written.
    """
    if path.suffix not in _WRITERS:
        raise ConfigError(
            f"Features cannot be written as {path.name}.", f"Name a file that ends in {' or '.join(_WRITERS)}."
        )
    return _WRITERS[path.suffix]


def write_npz(path: Path, shape: Sequence[int], parts: Iterable[Rows]) -> None:
    """Write numpy's format: ``features`` float32 [N, D], ``paths`` [N] and, of labelled images, ``labels`` [N].

    Args:
        path: The file.
        shape: Of all features.
        parts: All rows, in order.
    """
    paths: list[str] = []
    labels: list[str] = []
    with atomic_path(path) as aside, ZipFile(aside, "w", ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_2_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part.features, dtype="<f4").tobytes())
                paths += part.paths
                labels += part.labels or []
        for name, texts in (("paths", paths), ("labels", labels)):
            if texts:
                buffer = BytesIO()
                np.save(buffer, np.array(texts), allow_pickle=False)
                archive.writestr(f"{name}.npy", buffer.getvalue())


def write_parquet(path: Path, shape: Sequence[int], parts: Iterable[Rows]) -> None:
    """Write a Parquet table: ``path``, ``label`` if there are any, and ``features``, a list of D floats.

    Args:
        path: The file.
        shape: Of all features.
        parts: All rows, in order; each becomes a row group.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    def tables() -> Iterator[pa.Table]:
        for part in parts:
            flat = pa.array(np.ascontiguousarray(part.features, dtype=np.float32).ravel())
            columns = {"path": pa.array(part.paths, pa.string())}
            if part.labels is not None:
                columns["label"] = pa.array(part.labels, pa.string())
            yield pa.table({**columns, "features": pa.FixedSizeListArray.from_arrays(flat, shape[1])})

    rest = tables()
    first = next(rest)
    with atomic_path(path) as aside, ParquetWriter(aside, first.schema) as writer:
        writer.write_table(first)
        for table in rest:
            writer.write_table(table)


_WRITERS = {".npz": write_npz, ".parquet": write_parquet}
