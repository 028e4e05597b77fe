import copy

import pytest
import torch
from torch import nn

from lightssl.backbones.batchnorm import estimate_batch_norm, in_eval_mode
from lightssl.errors import DataError


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    )


def test_statistics_equal_those_computed_by_hand():
    network = small_network()
    images = torch.randn(6, 3, 9, 9)
    by_hand = copy.deepcopy(network).double()
    first = by_hand[0](images.double())
    normalised = (first - first.mean((0, 2, 3), keepdim=True)) / (
        first.var((0, 2, 3), correction=0, keepdim=True) + by_hand[1].eps
    ).sqrt()
    second = by_hand[4](normalised.relu())  # no dropout in between

    estimate_batch_norm(network, [images])

    for layer, activations in ((network[1], first), (network[5], second)):
        torch.testing.assert_close(layer.running_mean.double(), activations.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), activations.var((0, 2, 3)), atol=1e-5, rtol=1e-4)


def test_batches_count_alike_and_earlier_statistics_not_at_all():
    batches = [torch.randn(4, 3, 7, 7) + shift for shift in (0.0, 3.0, -1.0)]
    network = small_network()
    network[1].running_mean.fill_(1e6)
    estimate_batch_norm(network, iter(batches))
    means = [network[0](images).mean((0, 2, 3)) for images in batches]
    torch.testing.assert_close(network[1].running_mean, torch.stack(means).mean(0), atol=1e-5, rtol=1e-5)


def test_modes_momenta_and_weights_stay():
    network = small_network().train()
    network[5].eval()
    network[1].momentum = 0.3
    modes = [module.training for module in network.modules()]
    weights = [parameter.clone() for parameter in network.parameters()]
    estimate_batch_norm(network, [torch.randn(2, 3, 7, 7)])
    assert [module.training for module in network.modules()] == modes
    assert [network[1].momentum, network[5].momentum] == [0.3, 0.1]
    for before, after in zip(weights, network.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.grad is None


def test_modes_and_momenta_come_back_after_a_failure():
    network = small_network().train()
    with pytest.raises(RuntimeError):
        estimate_batch_norm(network, [torch.randn(2, 5, 7, 7)])
    assert all(module.training for module in network.modules())
    assert network[1].momentum == 0.1


def test_no_batch_is_an_error_and_changes_nothing():
    network = small_network()
    network[1].running_mean.fill_(2.0)
    with pytest.raises(DataError, match="no images"):
        estimate_batch_norm(network, [])
    assert (network[1].running_mean == 2.0).all()


def test_a_network_without_batch_norm_never_sees_the_images():
    estimate_batch_norm(nn.Linear(2, 2), [torch.zeros(0)])


def test_in_eval_mode_gives_each_module_its_own_mode_back():
    network = small_network().train()
    network[1].eval()
    with in_eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert network.training
    assert not network[1].training
