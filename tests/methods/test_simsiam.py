import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightssl.methods.base import Method
from lightssl.types import Clock


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()


def test_two_views_are_the_published_loss_and_its_gradient(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock]
) -> None:
    method = build("simsiam", weights=(1.0, 0.0)).double()
    twin: Any = copy.deepcopy(method)
    views = [draw_views(local_views=0)[0].double()]
    output = method(views, at())
    output.loss.backward()

    projections = twin.network.head(twin.network.backbone(views[0].flatten(0, 1)))
    p1, p2 = twin.predictor(projections).chunk(2)
    z1, z2 = projections.detach().chunk(2)
    exact = -(cosine(p1, z2) + cosine(p2, z1)) / 2
    exact.backward()
    torch.testing.assert_close(output.loss.double(), exact, rtol=1e-5, atol=1e-6)
    for parameter, same in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad, rtol=1e-5, atol=1e-7)


def test_projector_and_predictor_are_laid_out_as_published(build: Callable[..., Any]) -> None:
    method = build("simsiam", width=16, predictor_hidden=4, projector_layers=3)
    projector = [type(layer) for layer in method.network.head]
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert projector == [*block, *block, nn.Linear, nn.BatchNorm1d]
    assert not method.network.head[-1].affine
    assert [type(layer) for layer in method.predictor] == [*block, nn.Linear]
    assert [layer.out_features for layer in method.predictor if isinstance(layer, nn.Linear)] == [4, 16]
