import pytest
import torch

from lightssl import precision
from lightssl.errors import TrainingError
from lightssl.train.fabric import make_fabric

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides by what it can do itself")


@without_gpu
@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_trains_in_bfloat16_where_it_computes_in_it(
    native: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: native)
    assert make_fabric().strategy.precision.precision == chosen


@without_gpu
@pytest.mark.parametrize("name", ["16-mixed", "bf16-mixed"])
def test_what_a_cpu_lacks_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: False)
    with pytest.raises(TrainingError, match=r"GPU|bfloat16"):
        make_fabric(name)
