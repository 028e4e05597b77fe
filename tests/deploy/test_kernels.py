from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost
from lightssl.deploy.kernels import Kernel, convolution, count_kernels
from lightssl.deploy.onnx import ExportResult
from lightssl.errors import ExportError, TargetError


def count(
    network: nn.Module, export: Callable[..., ExportResult], folder: Path, size: int, **changes: Any
) -> list[Kernel]:
    path = folder / "network.onnx"
    export(network.eval(), path, input_size=size, **changes)
    return count_kernels(path)


class Block(nn.Module):
    """Squeeze-and-excitation, a residual, SiLU: what is fused and what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.mix = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.smooth = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.expand(images)
        y = self.mix(x)
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return F.gelu(self.smooth(x + y)).mean((2, 3))


def test_the_kernels_of_a_block_by_hand(export: Callable[..., ExportResult], tmp_path: Path) -> None:
    images, half = 3 * 16 * 16, 8 * 8 * 8  # float32 values of the input and of each map
    assert count(Block(), export, tmp_path, 16) == [
        Kernel("conv", 8 * 3 * 9 * 64, 4 * (images + half + 8 * 3 * 9)),
        Kernel("depthwise", 8 * 25 * 64, 4 * (half + half + 8 * 25)),
        Kernel("pooling", 0, 4 * (half + 8)),
        Kernel("pointwise", 16, 4 * (8 + 2 + 16)),
        Kernel("pointwise", 16, 4 * (2 + 8 + 16)),
        Kernel("elementwise", 0, 4 * (half + 8 + half)),  # the excitation
        Kernel("elementwise", 0, 4 * 3 * half),  # the residual
        Kernel("conv3x3", 8 * 8 * 9 * 64, 4 * (half + half + 8 * 8 * 9)),
        Kernel("pooling", 0, 4 * (half + 8)),
    ]


def test_mobilenetv2_has_the_kernels_of_its_paper(export: Callable[..., ExportResult], tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v2()
    kernels = count(network, export, tmp_path, 224)
    # Table 2 of arXiv:1801.04381: 17 blocks, the first without expansion, 10 with a residual; a head, a classifier.
    expected = {"conv": 1, "depthwise": 17, "pointwise": 17 + 16 + 2, "elementwise": 10, "pooling": 1}
    assert Counter(kernel.kind for kernel in kernels) == expected
    assert sum(kernel.macs for kernel in kernels) == count_cost(network, 224).flops
    path = tmp_path / "network.onnx"
    assert sum(kernel.macs for kernel in count_kernels(path, image_size=96)) == count_cost(network, 96).flops


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", {"conv3x3": 13, "conv": 4, "pointwise": 3, "pooling": 2, "elementwise": 8}),
        # 12 blocks of 4 linear layers and 2 products of activations, 2 norms and a softmax; the last norm.
        ("vit_tiny", {"conv": 1, "pointwise": 48, "matmul": 24, "normalisation": 37}),
    ],
)
def test_multiply_accumulates_agree_with_those_of_torch(
    name: str, kinds: dict[str, int], export: Callable[..., ExportResult], tmp_path: Path
) -> None:
    network = BACKBONES[name]()
    kernels = count(network, export, tmp_path, 224, include_normalisation=False)
    assert sum(kernel.macs for kernel in kernels) == count_cost(network, 224).flops
    counted = Counter(kernel.kind for kernel in kernels)
    assert {kind: counted[kind] for kind in kinds} == kinds


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"kernel": (1, 1)}, "pointwise"),
        ({"kernel": (3, 3)}, "conv3x3"),
        ({"kernel": (3, 3), "strides": (1, 1, 1, 1)}, "conv3x3"),
        ({"kernel": (3, 3), "strides": (2, 2)}, "conv"),
        ({"kernel": (3, 3), "strides": (1, 1, 2, 2)}, "conv"),
        ({"kernel": (3, 3), "groups": 2}, "conv"),
        ({"kernel": (3, 3), "groups": 8}, "depthwise"),
        ({"kernel": (1, 5)}, "conv"),
    ],
)
def test_kinds_of_convolutions(changes: dict[str, Any], kind: str) -> None:
    assert convolution((8, 4, 4), (8, 4, 4), **changes).kind == kind


def test_an_unknown_operator_is_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("Resize", ["images", "", "scales"], ["features"])
    path = save(tmp_path, [node], [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 2, 2])], [1, 3, 8, 8])
    with pytest.raises(TargetError, match="cannot be predicted: Resize"):
        count_kernels(path)


def test_what_does_not_depend_on_the_images_costs_nothing(tmp_path: Path) -> None:
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [4, 3, 1, 1], [0.0] * 12)
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 3, 3])
    nodes = [
        helper.make_node("Resize", ["weight", "", "scales"], ["larger"]),
        helper.make_node("Conv", ["images", "larger"], ["features"]),
    ]
    kernels = count_kernels(save(tmp_path, nodes, [weight, scales], [1, 3, 8, 8]))
    assert [(kernel.kind, kernel.macs) for kernel in kernels] == [("conv3x3", 4 * 3 * 9 * 36)]


def test_a_free_size_is_refused(tmp_path: Path) -> None:
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [4, 3, 3, 3], [0.0] * 108)
    path = save(tmp_path, [helper.make_node("Conv", ["images", "weight"], ["features"])], [weight], ["n", 3, "h", "w"])
    with pytest.raises(TargetError, match="leaves the size of 'images' free"):
        count_kernels(path)
    assert [kernel.macs for kernel in count_kernels(path, image_size=8)] == [108 * 36]


@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_a_missing_or_damaged_model(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"other\.onnx"):
        count_kernels(path)


def save(folder: Path, nodes: list[Any], weights: list[Any], shape: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        weights,
    )
    path = folder / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path
