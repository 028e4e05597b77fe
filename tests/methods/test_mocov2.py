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

Views = Callable[..., list[Tensor]]


def test_the_first_global_view_is_seen_by_the_key_encoder_and_by_it_alone(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock]
) -> None:
    method: Any = build("mocov2")
    global_views, local_views = draw_views()
    method([global_views, local_views], at())
    (key_images,) = method.key.backbone.seen
    assert torch.equal(key_images, global_views[0])
    second, locals_seen = method.query.backbone.seen
    assert torch.equal(second, global_views[1])
    assert torch.equal(locals_seen, local_views.flatten(0, 1))


def test_key_encoder_queue_and_loss_follow_the_published_order(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock], follow: Callable[..., list[float]]
) -> None:
    """In each step: move the key encoder, encode the key, compare with the queue, replace the queue's oldest."""
    method: Any = build("mocov2")  # momentum .9, a queue of three batches: the ring closes twice
    ring = method.queue_keys.clone()
    key_parameters = [p.detach().double() for p in method.query.parameters()]
    for step in range(8):
        key_parameters = [
            0.9 * k + 0.1 * q.detach().double() for k, q in zip(key_parameters, method.query.parameters(), strict=True)
        ]
        for parameter, exact in zip(method.key.parameters(), key_parameters, strict=True):
            torch.testing.assert_close(parameter.double(), exact, rtol=1e-5, atol=1e-6)

        global_views, local_views = draw_views(step)
        with torch.no_grad():
            twin = copy.deepcopy(method)
            keys = twin.key.head(twin.key.backbone(global_views[0]))
            queries = twin.query([global_views[1:], local_views])[1]
        logits = torch.stack([torch.cat([(q * keys).sum(1, keepdim=True), q @ ring.T], 1) / 0.2 for q in queries])
        costs = [F.cross_entropy(view.double(), torch.zeros(4, dtype=torch.long)).item() for view in logits]
        (loss,) = follow(method, [[global_views, local_views]], at, start=step)
        assert loss == pytest.approx(0.4 * costs[0] + 0.6 * sum(costs[1:]) / 6, rel=1e-5)

        ring[step % 3 * 4 : step % 3 * 4 + 4] = keys
        torch.testing.assert_close(method.queue_keys, ring, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ring.norm(dim=1), torch.ones(12))


def test_in_the_first_step_both_encoders_are_the_same(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock]
) -> None:
    method = build("mocov2")
    global_views = draw_views(local_views=0)[0]
    same = global_views[:1].repeat(2, 1, 1, 1, 1)
    assert method([same], at()).logs["key_agreement"].item() == pytest.approx(1.0)


def test_a_queue_that_the_batch_does_not_divide_is_refused(
    build: Callable[..., Method], at: Callable[..., Clock]
) -> None:
    method = build("mocov2", queue=100)
    method.check(at(batch=25))
    with pytest.raises(ConfigError, match=r"method\.queue is 100, which the batch of 16 images does not divide") as one:
        method.check(at(batch=16))
    assert "--set method.queue=96" in str(one.value)
    with pytest.raises(ConfigError, match="batch of 256") as small:
        method.check(at(batch=256))
    assert "--set method.queue=256" in str(small.value)
