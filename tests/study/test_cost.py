"""What members cost, and conditions on it. That costs are right is tested on the grids."""

import pytest

from lightssl.backbones.cost import Cost
from lightssl.errors import ConfigError
from lightssl.study.cost import Condition, count_member
from lightssl.study.members import Member

COST = Cost(flops=2_000_000_000, parameters=11_000_000)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("flops<2G", False),
        ("flops<=2G", True),
        ("flops > 1.9G", True),
        ("flops>=2000000001", False),
        ("params<12M", True),
        ("parameters<11M", False),
    ],
)
def test_conditions_compare_a_cost_with_a_bound(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds(COST) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops", "is not a condition"),
        ("flops=2G", "is not a condition"),
        ("flop<2G", "Did you mean 'flops'"),
        ("flops<many", "is not a number above 0"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Condition.parse(text)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("small", "vit", {"topology": "192x12-h3m4"}), "8 pixels are too few"),
        (Member("stock", "vit_tiny"), "needs at least 16"),
        (Member("none", "timm", {"model": "mobilenetv3_tiny_1"}), "timm has no network"),
    ],
)
def test_networks_that_cannot_be_counted_are_errors(member: Member, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        count_member(member, 8)
