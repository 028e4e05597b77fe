"""Which devices compute in bfloat16, and modules that do so for a while."""

import pytest
import torch
from torch import Tensor, nn

from lightssl import precision
from lightssl.precision import computes_bf16, in_bfloat16, precision_of


class Levels(nn.Module):
    """Returns tensors of several kinds in what other modules return them in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> dict[str, object]:
        output = self.layer(images)
        return {"computed": output.dtype, "list": [output, output.argmax(1)], "tuple": (output.double(), None)}


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: True)


@pytest.mark.usefixtures("able")
def test_modules_compute_in_bfloat16_and_hand_on_float32() -> None:
    module = Levels()
    with in_bfloat16(module, device="cpu"):
        found = module(torch.randn(3, 4))
    assert precision_of("cpu") == "bf16-mixed"
    assert found["computed"] == torch.bfloat16
    assert [one.dtype for one in found["list"]] == [torch.float32, torch.int64]
    assert found["tuple"][0].dtype == torch.float64
    assert found["tuple"][1] is None


@pytest.mark.usefixtures("able")
def test_gradients_arrive_at_weights_in_float32() -> None:
    layer = nn.Linear(64, 8)
    images = torch.randn(5, 64)
    (layer(images) ** 2).sum().backward()
    exact, layer.weight.grad = layer.weight.grad, None
    with in_bfloat16(layer, device="cpu"):
        (layer(images) ** 2).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert 0 < (layer.weight.grad - exact).norm() < 0.02 * exact.norm()


@pytest.mark.usefixtures("able")
def test_modules_are_afterwards_what_they_were() -> None:
    module = Levels()
    names = list(module.state_dict())
    with in_bfloat16(module, device="cpu"):
        assert list(module.state_dict()) == names
    with pytest.raises(KeyboardInterrupt), in_bfloat16(module, device="cpu"):
        raise KeyboardInterrupt
    assert "forward" not in vars(module)
    assert module(torch.randn(3, 4))["computed"] == torch.float32


def test_a_cpu_without_it_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: False)
    module = Levels()
    with in_bfloat16(module, device="cpu"):
        assert module(torch.randn(3, 4))["computed"] == torch.float32
    assert precision_of("cpu") == "32-true"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_only_emulates_it_does_not_count(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert computes_bf16("cuda:1") is native
    assert not computes_bf16("mps")
