"""The table of a study: it comes back as it was written, and what is no table is refused."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lightssl.backbones.cost import Cost
from lightssl.errors import LightSSLError
from lightssl.study.grids import one_network, revisiting
from lightssl.study.members import Member
from lightssl.study.table import Row, facts_of, family_of, read_table, width_of, write_table
from tests.study.planted import row

ROWS = [
    row(),
    row(seed=1, width=0.5, depths=None, minutes=1.5, cv_top1=49.5),
    row(seed=2, top1=None, error="diverged at step 3"),
    row(scenario="\N{GREEK SMALL LETTER ALPHA} b/c", flops=2**40),
]


def test_the_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "study" / "results.parquet", ROWS)
    assert read_table(tmp_path / "study" / "results.parquet") == ROWS
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["results.parquet"]  # nothing is left aside


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_reading_leaves_no_threads_that_could_abort_the_program_as_it_ends(tmp_path: Path) -> None:
    write_table(tmp_path / "results.parquet", ROWS)
    script = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from lightssl.study.table import read_table

before = len(os.listdir("/proc/self/task"))
read_table(Path(sys.argv[1]))
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "results.parquet")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "0"


def test_a_study_that_has_just_begun_has_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "results.parquet", [])
    assert read_table(tmp_path / "results.parquet") == []


def test_columns_without_any_value_come_back(tmp_path: Path) -> None:
    write_table(tmp_path / "results.parquet", [row(depths=None, top1=None, error=None)])
    assert read_table(tmp_path / "results.parquet") == [row(depths=None, top1=None, error=None)]


def test_an_accuracy_that_is_no_number_has_failed(tmp_path: Path) -> None:
    write_table(tmp_path / "results.parquet", [row(top1=float("nan"))])
    (found,) = read_table(tmp_path / "results.parquet")
    assert found == row(top1=None, error="the accuracy is nan")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    with pytest.raises(LightSSLError, match=r"holds no results of a study: results\.parquet is missing"):
        read_table(path)
    write_table(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LightSSLError, match="cannot be read"):
        read_table(path)
    path.write_bytes(b"")
    with pytest.raises(LightSSLError, match="cannot be read"):
        read_table(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["top1", "seed"]), "it lacks seed, top1"),
        (lambda table: table.append_column("top5", table["top1"]), "it has top5"),
        (lambda table: table.set_column(9, "seed", pa.array(["a"] * len(table))), "something else than results"),
        (
            lambda table: table.set_column(9, "seed", pa.array([None] * len(table), pa.int64())),
            "'seed' with null values",
        ),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "results.parquet"
    write_table(path, ROWS)
    table = parquet.read_table(path)
    assert table.column_names[9] == "seed"
    parquet.write_table(change(table), path)
    with pytest.raises(LightSSLError, match=message):
        read_table(path)


def test_a_result_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "results.parquet", [*ROWS, row(top1=51.0)])
    with pytest.raises(LightSSLError, match="a result twice: a with resnet18_simclr_cifar, seed 0, linear_cv on one"):
        read_table(tmp_path / "results.parquet")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    write_table(path, ROWS)
    table = parquet.read_table(path)
    parquet.write_table(table.select(table.column_names[::-1]), path)
    assert read_table(path) == ROWS


# ------------------------------------------------------------------------------------------------------------- members


def test_families_are_short_and_leave_depths_and_widths_out() -> None:
    families = list(dict.fromkeys(family_of(member) for member in one_network()))
    assert families == ["resnet bottleneck", "resnet basic", "mobilenetv2"]
    families = list(dict.fromkeys(family_of(member) for member in revisiting()))
    assert families == [
        "resnet50_v1",
        "resnet50_v2",
        "resnet50_v2 no final_relu",
        "revnet50",
        "revnet50 no final_relu",
        "vgg19_bn",
    ]
    assert family_of(Member("x", "resnet", {"block": "basic", "stem": "small"})) == "resnet basic small"


@pytest.mark.parametrize(
    ("member", "width"),
    [
        (Member("half", "mobilenetv2", {"width": 0.5}), 0.5),
        (Member("stock", "mobilenetv2"), 1.0),
        (Member("wide", "resnet50_v2", {"width_factor": 12}), 12.0),
        (Member("none", "resnet18"), None),
    ],
)
def test_the_width_is_the_option_of_the_backbone_or_its_default(member: Member, width: float | None) -> None:
    assert width_of(member) == width


def test_what_all_results_of_a_member_share(tmp_path: Path) -> None:
    member = next(member for member in one_network() if member.name == "resnet50")
    facts = facts_of(member, Cost(4_000, 25))
    assert facts == {
        "member": "resnet50",
        "family": "resnet bottleneck",
        "backbone": "resnet",
        "depths": (3, 4, 6, 3),
        "width": None,
        "flops": 4_000,
        "parameters": 25,
    }
    results = {"recipe": "r", "method": "simclr", "seed": 0, "scenario": "sample", "task": "linear_cv", "top1": 1.0}
    write_table(tmp_path / "results.parquet", [Row(**facts, **results)])
    assert read_table(tmp_path / "results.parquet") == [Row(**facts, **results)]
