"""``train.compile``: every method trains as without it, and a machine that cannot compile is told so."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lightssl.backbones.base import Backbone, Stage
from lightssl.errors import TrainingError
from lightssl.methods import METHODS
from lightssl.train.compiling import compile_backbones
from lightssl.train.loop import Trainer


class Small(Backbone):
    """Few operations: the compiler takes seconds for each network."""

    feature_width = 6
    stages = (Stage(6, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[0].mean((2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_trains_compiled_as_it_does_eagerly(
    name: str, make_trainer: Callable[..., Trainer], losses_of: Callable[..., list[float]], host: Fabric
) -> None:
    try:
        compile_backbones(nn.Identity(), host.device)
    except TrainingError as error:
        pytest.skip(str(error))
    eager, compiled = (
        make_trainer(name, host, backbone=Small(), optimizer="sgd", compile=compile) for compile in (False, True)
    )
    eager.method.load_state_dict(compiled.method.state_dict())
    expected, found = losses_of(eager), losses_of(compiled)
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert found == pytest.approx(expected, rel=1e-2)  # rounding grows from step to step


@pytest.mark.usefixtures("_own_cache")
def test_a_machine_without_a_compiler_is_told_so(
    make_trainer: Callable[..., Trainer], host: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(TrainingError, match=r"train\.compile=true does not work on this machine") as caught:
        make_trainer("dino", host, backbone=Small(), compile=True)
    assert "g++" in str(caught.value)
    assert "train.compile=false" in str(caught.value)
