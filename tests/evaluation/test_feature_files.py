from pathlib import Path

import numpy as np
import pytest
from pyarrow.parquet import ParquetFile, read_table

from lightssl.errors import ConfigError
from lightssl.evaluation.feature_files import Rows, write_npz, write_parquet, writer_of


def parts(*, labelled: bool) -> list[Rows]:
    generator = np.random.default_rng(0)
    return [
        Rows(
            [f"{part}/{i} \N{GRINNING FACE}.jpg" for i in range(count)],
            ["a, b"] * count if labelled else None,
            generator.normal(size=(count, 5)).astype(np.float32),
        )
        for part, count in enumerate([3, 1, 4])
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_npz_holds_all_rows_and_no_pickle(labelled: bool, tmp_path: Path) -> None:
    rows = parts(labelled=labelled)
    write_npz(tmp_path / "features.npz", (8, 5), iter(rows))
    with np.load(tmp_path / "features.npz", allow_pickle=False) as read:
        assert sorted(read) == ["features", "labels", "paths"][: 3 if labelled else 1] + ["paths"] * (not labelled)
        np.testing.assert_array_equal(read["features"], np.concatenate([part.features for part in rows]))
        assert read["paths"].tolist() == [path for part in rows for path in part.paths]


@pytest.mark.parametrize("labelled", [True, False])
def test_parquet_holds_all_rows_a_group_for_each_part(labelled: bool, tmp_path: Path) -> None:
    rows = parts(labelled=labelled)
    write_parquet(tmp_path / "features.parquet", (8, 5), iter(rows))
    table = read_table(tmp_path / "features.parquet")
    assert table.column_names == ["path", *["label"] * labelled, "features"]
    np.testing.assert_array_equal(np.stack(table["features"].to_numpy()), np.concatenate([p.features for p in rows]))
    assert table["path"].to_pylist() == [path for part in rows for path in part.paths]
    assert ParquetFile(tmp_path / "features.parquet").num_row_groups == 3


@pytest.mark.parametrize("write", [write_npz, write_parquet])
def test_a_failure_leaves_the_file_as_it_was(write, tmp_path: Path) -> None:
    path = tmp_path / "features"
    path.write_text("before")

    def failing():
        yield from parts(labelled=True)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(path, (8, 5), failing())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_kinds_of_files_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Features cannot be written as features\.csv"):
        writer_of(Path("features.csv"))
