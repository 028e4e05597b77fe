import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.errors import ConfigError
from lightssl.methods.base import Method
from lightssl.types import Clock


def test_two_views_are_the_published_loss_and_its_gradient(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock]
) -> None:
    method = build("simclr", weights=(1.0, 0.0)).double()
    twin: Any = copy.deepcopy(method)
    views = [draw_views(local_views=0)[0].double()]
    output = method(views, at())
    output.loss.backward()

    embeddings = F.normalize(twin.network.head.head(twin.network.backbone(views[0].flatten(0, 1))))  # [2 * 4, D]
    similarity = embeddings @ embeddings.T / 0.5
    similarity = similarity.masked_fill(torch.eye(8, dtype=torch.bool), float("-inf"))  # 2N - 1 candidates
    exact = F.cross_entropy(similarity, torch.arange(8).roll(4))
    exact.backward()
    torch.testing.assert_close(output.loss.double(), exact, rtol=1e-5, atol=1e-6)
    for parameter, same in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_of_one_image_is_refused(build: Callable[..., Method], at: Callable[..., Clock]) -> None:
    method = build("simclr")
    method.check(at(batch=2))
    with pytest.raises(ConfigError, match="SimCLR compares the images of a batch") as caught:
        method.check(at(batch=1))
    assert "train.batch_size" in str(caught.value)
