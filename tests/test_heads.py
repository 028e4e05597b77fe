import pytest
import torch
from torch import nn

from lightssl.heads import DINOHead, L2Normalised, hidden_layers, mlp


def layout(layers: nn.Module) -> list[str]:
    """The layers, linear ones with their widths and a plus for a bias."""
    return [
        f"{layer.in_features}-{layer.out_features}{'+' * (layer.bias is not None)}"
        if isinstance(layer, nn.Linear)
        else type(layer).__name__
        for layer in layers
    ]


def test_mlp_ends_in_a_linear_layer() -> None:
    assert layout(mlp((6, 16, 12, 8))) == [
        *["6-16+", "BatchNorm1d", "ReLU"],
        *["16-12+", "BatchNorm1d", "ReLU"],
        "12-8+",
    ]


def test_mlp_without_batch_norm_and_with_another_activation() -> None:
    assert layout(mlp((6, 16, 8), batch_norm=False, activation=nn.GELU)) == ["6-16+", "GELU", "16-8+"]


def test_mlp_of_one_layer() -> None:
    assert layout(mlp((6, 8))) == ["6-8+"]


def test_final_norm_has_no_scale_and_shift_and_takes_the_place_of_the_bias() -> None:
    layers = mlp((6, 16, 8), final_norm=True)
    assert layout(layers) == ["6-16+", "BatchNorm1d", "ReLU", "16-8", "BatchNorm1d"]
    assert layers[1].affine
    assert not layers[-1].affine
    outputs = layers(torch.randn(32, 6))
    torch.testing.assert_close(outputs.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.var(0, unbiased=False), torch.ones(8), atol=1e-2, rtol=0)


def test_l2_normalised_outputs_have_unit_length_and_the_direction_of_the_head() -> None:
    head = nn.Linear(6, 8)
    features = torch.randn(5, 6)
    outputs = L2Normalised(head)(features)
    torch.testing.assert_close(outputs.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(outputs * head(features).norm(dim=1, keepdim=True), head(features))


def test_dino_head_is_laid_out_as_published() -> None:
    block = ["BatchNorm1d", "GELU"]
    assert layout(DINOHead(6, hidden=16, bottleneck=8, prototypes=12).mlp) == [
        "6-16+",
        *block,
        "16-16+",
        *block,
        "16-8+",
    ]
    plain = DINOHead(6, hidden=16, bottleneck=8, prototypes=12, batch_norm=False)
    assert layout(plain.mlp) == ["6-16+", "GELU", "16-16+", "GELU", "16-8+"]


def test_dino_head_starts_as_published() -> None:
    torch.manual_seed(0)
    head = DINOHead(64, hidden=256, bottleneck=32, prototypes=48)
    for layer in head.mlp:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert layer.bias.eq(0).all()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(48))


def test_dino_scores_are_cosines_of_features_and_prototypes() -> None:
    head = DINOHead(6, hidden=16, bottleneck=8, prototypes=12).eval()
    features = torch.randn(5, 6)
    exact = nn.functional.cosine_similarity(head.mlp(features)[:, None], head.prototypes.weight[None], dim=2)
    torch.testing.assert_close(head(features), exact)


@pytest.mark.parametrize("freeze_gain", [True, False])
def test_the_gain_of_the_prototypes_is_trained_unless_frozen(freeze_gain: bool) -> None:
    head = DINOHead(6, hidden=16, bottleneck=8, prototypes=12, freeze_gain=freeze_gain)
    head(torch.randn(5, 6)).square().sum().backward()
    gain, direction = head.prototypes.parametrizations.weight.parameters()
    assert gain.shape == (12, 1)
    assert (gain.grad is None) == freeze_gain
    assert direction.grad is not None


@pytest.mark.parametrize(
    "head",
    [
        mlp((6, 5, 5, 4), activation=nn.GELU),
        mlp((6, 5, 4), final_norm=True),
        L2Normalised(mlp((6, 5, 4), batch_norm=False)),
        nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), mlp((5, 4), final_norm=True)),
        nn.Sequential(mlp((6, 5, 4)), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())),
    ],
)
def test_hidden_layers_are_those_before_the_last_linear_one(head: nn.Module) -> None:
    head.eval()
    chain = head.head if isinstance(head, L2Normalised) else head
    seen: list[torch.Tensor] = []
    last = [module for module in chain.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = torch.randn(3, 6)
    chain(features)
    assert torch.equal(hidden_layers(head)(features), seen[0])


def test_hidden_layers_of_dino_and_of_a_head_of_one_layer() -> None:
    head = DINOHead(6, hidden=5, bottleneck=4, prototypes=3)
    assert list(hidden_layers(head)) == list(head.mlp[:-1])
    assert list(hidden_layers(nn.Sequential(nn.Linear(6, 4)))) == []
