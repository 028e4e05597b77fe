"""What all methods share: how views are encoded, momentum copies, the probe, local views, resuming."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from lightssl.methods import METHODS
from lightssl.methods.base import Branch, Method, ema_update, encode_views
from lightssl.types import Clock

PRETEXT = ("rotation", "exemplar", "relative_patch", "jigsaw")  # tasks whose views are no questions to each other
every_method = pytest.mark.parametrize("name", list(METHODS))
comparing_method = pytest.mark.parametrize("name", [name for name in METHODS if name not in PRETEXT])
momentum_methods = pytest.mark.parametrize(
    ("name", "trained", "averaged"), [("dino", "student", "teacher"), ("mocov2", "query", "key")]
)


class Mean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_one_forward_for_each_resolution_globals_first(backbone: Any, draw_views: Callable[..., list[Tensor]]) -> None:
    features = encode_views(backbone, draw_views())
    assert [images.shape for images in backbone.seen] == [(8, 3, 12, 12), (24, 3, 7, 7)]
    assert features.shape == (8, 4, 6)


def test_views_of_equal_size_share_one_forward(backbone: Any) -> None:
    features = encode_views(backbone, [torch.randn(2, 4, 3, 9, 9), torch.randn(3, 4, 3, 9, 9)])
    assert [images.shape for images in backbone.seen] == [(20, 3, 9, 9)]
    assert features.shape == (5, 4, 6)


def test_features_keep_the_order_of_views_and_images(draw_views: Callable[..., list[Tensor]]) -> None:
    groups = draw_views()
    features = encode_views(Mean(), groups)
    for v in range(8):
        group, i = (groups[0], v) if v < 2 else (groups[1], v - 2)
        torch.testing.assert_close(features[v], group[i].mean((2, 3)))


def test_the_head_sees_all_views_together(backbone: Any, draw_views: Callable[..., list[Tensor]]) -> None:
    branch = Branch(backbone, nn.BatchNorm1d(6, affine=False))
    _, outputs = branch(draw_views())
    torch.testing.assert_close(outputs.mean((0, 1)), torch.zeros(6), atol=1e-5, rtol=0)


def test_ema_several_steps_against_float64(backbone: Any) -> None:
    averaged, source = copy.deepcopy(backbone), backbone
    expected = [p.detach().double() for p in averaged.parameters()]
    for momentum in (0.9, 0.5, 0.996, 1.0, 0.0, 0.9):
        with torch.no_grad():
            for p in source.parameters():
                p.add_(torch.randn_like(p))
        ema_update(averaged, source, momentum)
        expected = [
            momentum * e + (1 - momentum) * p.detach().double()
            for e, p in zip(expected, source.parameters(), strict=True)
        ]
        for p, e in zip(averaged.parameters(), expected, strict=True):
            torch.testing.assert_close(p.double(), e, atol=1e-6, rtol=1e-5)


def test_ema_leaves_batch_norm_statistics_alone(backbone: Any) -> None:
    averaged = copy.deepcopy(backbone)
    before = copy.deepcopy(dict(averaged.named_buffers()))
    with torch.no_grad():
        backbone.norm.running_mean.add_(3)
    ema_update(averaged, backbone, 0.5)
    for name, buffer in averaged.named_buffers():
        assert torch.equal(buffer, before[name]), name


@momentum_methods
def test_the_average_starts_as_the_trained_network_head_included(
    build: Callable[..., Method], name: str, trained: str, averaged: str
) -> None:
    method = build(name)
    source, target = getattr(method, trained).state_dict(), getattr(method, averaged).state_dict()
    assert source.keys() == target.keys()
    assert any("head" in key for key in source)
    for key in source:
        assert torch.equal(source[key], target[key]), key
        assert source[key].data_ptr() != target[key].data_ptr(), key


@momentum_methods
def test_no_gradient_reaches_the_average(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    name: str,
    trained: str,
    averaged: str,
) -> None:
    method = build(name)
    method(draw_views(), at()).loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in getattr(method, averaged).parameters())
    assert getattr(method, trained) is not getattr(method, averaged)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout2d(0.5),
        DropPath(0.5),
        StochasticDepth(0.5, "row"),
        nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(0.5))),
    ],
    ids=["dropout", "dropout2d", "timm", "torchvision", "nested"],
)
def test_dropout_and_drop_path_act_in_the_trained_branch_only(layer: nn.Module) -> None:
    branch = Branch(nn.Sequential(layer, Mean()), nn.Identity()).train()
    views = [torch.ones(2, 32, 3, 4, 4)]
    averaged = branch.momentum_copy()
    assert averaged.training
    torch.testing.assert_close(averaged(views)[0], torch.ones(2, 32, 3))
    assert not torch.equal(branch(views)[0], torch.ones(2, 32, 3))


def test_the_dropout_that_timm_networks_apply_themselves_is_off_too() -> None:
    class Network(Mean):
        drop_rate = 0.5

        def forward(self, images: Tensor) -> Tensor:
            return F.dropout(super().forward(images), self.drop_rate, self.training)

    branch = Branch(Network(), nn.Identity()).train()
    views = [torch.ones(1, 32, 3, 4, 4)]
    assert not torch.equal(branch(views)[0], torch.ones(1, 32, 3))
    assert torch.equal(branch.momentum_copy()(views)[0], torch.ones(1, 32, 3))


def test_batch_norm_works_alike_in_a_momentum_copy(backbone: Any, draw_views: Callable[..., list[Tensor]]) -> None:
    branch = Branch(backbone, nn.BatchNorm1d(6)).train()
    averaged = branch.momentum_copy()
    assert torch.equal(averaged(draw_views())[1], branch(draw_views())[1])


@every_method
@pytest.mark.parametrize("local_views", [0, 1, 6])
def test_every_method_takes_any_number_of_local_views(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    name: str,
    local_views: int,
) -> None:
    method = build(name)
    output = method(draw_views(local_views=local_views), at())
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.features.shape == (4, 6)
    assert not output.features.requires_grad
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@every_method
def test_every_method_trains_in_mixed_precision(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
    name: str,
) -> None:
    batches = [draw_views(step) for step in range(6)]  # long enough for the queues to take part
    exact = follow(build(name), batches[:1], at)[0]
    method, losses = build(name), []
    for step, views in enumerate(batches):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses += follow(method, [views], at, start=step)
    assert losses[0] == pytest.approx(exact, rel=0.05, abs=0.02)
    assert torch.tensor(losses).isfinite().all()


@comparing_method
def test_local_views_predict_and_are_never_predicted(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock], name: str
) -> None:
    # In evaluation mode batch norm keeps views apart, so that each local view must add a term of its own and no more.
    method = build(name).eval()
    global_views, local_views = draw_views()

    def loss(weights: tuple[float, float], *views: Tensor) -> float:
        fresh = copy.deepcopy(method)  # a step may change centre and queue
        fresh.weights = weights
        return fresh(views, at()).loss.item()

    global_loss = loss((1.0, 0.0), global_views)
    local_losses = [loss((0.0, 1.0), global_views, local_views[v : v + 1]) for v in range(6)]
    assert len(set(local_losses)) == 6
    expected = 0.4 * global_loss + 0.6 * sum(local_losses) / 6
    assert loss((0.4, 0.6), global_views, local_views) == pytest.approx(expected, rel=1e-5)


@every_method
def test_a_third_global_view_is_taken(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock], name: str
) -> None:
    assert build(name)(draw_views(global_views=3), at()).loss.isfinite()


@every_method
def test_training_moves_the_encoder_that_is_evaluated(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
    name: str,
) -> None:
    method = build(name)
    before = copy.deepcopy(method.encoder)
    follow(method, [draw_views()], at)
    assert not torch.equal(method.encoder.conv.weight, before.conv.weight)


@comparing_method
def test_the_loss_falls_when_it_is_followed(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
    name: str,
) -> None:
    # Four batches in turn, and the first of them again after MoCo's queue has filled.
    losses = follow(
        build(name),
        [draw_views(step % 4, images=12) for step in range(40)],
        lambda step: at(step, total=40, epoch=1, batch=12),
    )
    assert sum(losses[-4:]) / 4 < sum(losses[4:8]) / 4 - 0.1


@every_method
def test_a_method_goes_on_from_its_state_as_if_it_had_not_stopped(
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
    name: str,
) -> None:
    batches = [draw_views(step) for step in range(8)]
    method = build(name)
    resumed = copy.deepcopy(method)
    expected = follow(copy.deepcopy(method), batches, at)

    follow(method, batches[:5], at)
    resumed.load_state_dict(method.state_dict())
    assert follow(resumed, batches[5:], at, start=5) == expected[5:]


@every_method
def test_the_probe_learns_beside_the_method_and_changes_nothing(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock], name: str
) -> None:
    alone = build(name)
    method = copy.deepcopy(alone)
    method.attach_probe(3)
    labels = torch.tensor([0, 2, 1, 2])
    torch.manual_seed(1)
    output = method(draw_views(), at(), labels)
    torch.manual_seed(1)
    assert torch.equal(output.loss, alone(draw_views(), at()).loss)

    logits = output.features @ method.probe.weight.T + method.probe.bias
    exact = -sum(torch.log_softmax(logits[i].double(), 0)[label] for i, label in enumerate(labels)) / 4
    assert output.probe_loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert output.logs["probe_top1"].item() == 25.0 * (logits.argmax(1) == labels).sum().item()

    output.probe_loss.backward()
    reached = {key for key, parameter in method.named_parameters() if parameter.grad is not None}
    assert reached == {"probe.weight", "probe.bias"}
    assert not method.probe.weight.grad.eq(0).all()


def test_without_labels_there_is_no_probe_loss(
    build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock]
) -> None:
    method = build("dino")
    assert method(draw_views(), at(), torch.zeros(4, dtype=torch.long)).probe_loss is None
    method.attach_probe(3)
    assert method(draw_views(), at()).probe_loss is None
