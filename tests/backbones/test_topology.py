"""Topologies are read and written alike, and what is none is refused with an example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightssl.backbones.topology import Grammar, StageTopology, Topology
from lightssl.errors import ConfigError

NUMBERS = st.integers(1, 9999)


@st.composite
def grammars_and_topologies(draw: st.DrawFn) -> tuple[Grammar, Topology]:
    letters = draw(st.sampled_from(["", "k", "ke", "hm"]))
    block = st.tuples(*[NUMBERS] * len(letters))
    blocks = st.lists(block, min_size=1, max_size=12).map(tuple)
    topology = draw(st.lists(st.builds(StageTopology, NUMBERS, blocks), min_size=1, max_size=7).map(tuple))
    return Grammar(letters, " ".join(["1x1"] * len(topology))), topology


@given(grammars_and_topologies())
def test_what_is_written_reads_the_same(case: tuple[Grammar, Topology]) -> None:
    grammar, topology = case
    text = grammar.write(topology)
    assert grammar.parse(text) == topology
    assert grammar.write(grammar.parse(text)) == text


def test_blocks_that_are_alike_are_written_once() -> None:
    grammar = Grammar("ke", "16x1-k3e1 24x2-k3e6")
    assert grammar.parse("16x2-k5e1 24x2-k3e6-k5e4") == (
        StageTopology(16, ((5, 1), (5, 1))),
        StageTopology(24, ((3, 6), (5, 4))),
    )
    assert grammar.write(grammar.parse("16x2-k5e1-k5e1 24x1-k3e6")) == "16x2-k5e1 24x1-k3e6"


@pytest.mark.parametrize(
    "stage",
    [
        "24",
        "24x2",
        "24x0-k3e6",
        "0x2-k3e6",
        "24x2-k3",
        "24x2-e6k3",
        "24x2-k3e6-",
        "24x3-k3e6-k5e6",
        "24x2-k0e6",
        "24x2-k3e6x",
        "x24x2-k3e6",
        "24x2k3e6",
        "24x99999-k3e6",
    ],
)
def test_what_is_no_stage_is_refused(stage: str) -> None:
    with pytest.raises(ConfigError, match="16x1-k3e1 24x2-k3e6"):
        Grammar("ke", "16x1-k3e1 24x2-k3e6").parse(f"16x1-k3e1 {stage}")
    with pytest.raises(ConfigError, match="not a stage"):
        Grammar("", "16x1").parse("16x2-k3")


def test_widths_and_settings_can_be_restricted() -> None:
    grammar = Grammar("ke", "16x1-k3e1", width_step=8, odd="k")
    assert grammar.parse("24x2-k5e4-k3e6")[0].width == 24
    for text in ("20x1-k3e1", "24x2-k5e4-k4e6"):
        with pytest.raises(ConfigError, match=r"a multiple of 8, .* \(k is odd\)"):
            grammar.parse(text)
