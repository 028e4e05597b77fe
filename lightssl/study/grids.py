"""Grids of published studies."""

from collections.abc import Iterator, Sequence
from itertools import product

from lightssl.study.members import Member

_WIDTHS = (64, 128, 256, 512)  # of the stages of a ResNet
_RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
# Stages of MobileNetV2: width and expansion. The first and the last always have one block.
_MOBILENETV2 = ((16, 1), (24, 6), (32, 6), (64, 6), (96, 6), (160, 6), (320, 6))
_MOBILENETV2_DEPTHS = ((2, 3), (3, 4), (4, 5), (3, 4), (3, 4))  # of the five stages between them

_REVISITED: tuple[tuple[str, str, dict[str, bool]], ...] = (
    ("resnet50_v1", "", {}),
    ("resnet50_v2", "", {}),
    ("resnet50_v2", "-no-relu", {"final_relu": False}),
    ("revnet50", "", {}),
    ("revnet50", "-no-relu", {"final_relu": False}),
    ("vgg19_bn", "", {}),
)
_WIDTH_FACTORS = (4, 8, 12, 16)


def one_network() -> list[Member]:
    """Return the networks of "One Network Doesn't Rule Them All" (arXiv 2203.08130).

    81 ResNets of bottleneck blocks, ResNet18, ResNet34 and ResNet50, and 32 MobileNetV2 with the stock one among them.
    None is there twice: the third stage of ResNet50 is deeper than any of the 81.
    """
    return [
        *_resnets("bottleneck"),
        *(_resnet(name, block, depths) for name, (block, depths) in _RESNETS.items()),
        *(_mobilenetv2(depths) for depths in product(*_MOBILENETV2_DEPTHS)),
    ]


def basic() -> list[Member]:
    """Return the 81 ResNets of basic blocks from the same authors' code."""
    return list(_resnets("basic"))


def revisiting() -> list[Member]:
    """Return the networks of "Revisiting Self-Supervised Visual Representation Learning" (arXiv 1901.09005).

    Six architectures, each in four widths: ResNet50 in its first form, with pre-activation, and as a reversible
    network, the latter two also without the ReLU at their end, and VGG19 with batch norm. Each of the paper's pretext
    tasks is a study of them.
    """
    return [
        Member(f"{backbone}{ending}-{width}", backbone, {"width_factor": width, **options})
        for backbone, ending, options in _REVISITED
        for width in _WIDTH_FACTORS
    ]


def _resnets(block: str) -> Iterator[Member]:
    """ResNets of two to four blocks in each stage."""
    for depths in product((2, 3, 4), repeat=len(_WIDTHS)):
        yield _resnet(f"{block}-{_digits(depths)}", block, depths)


def _resnet(name: str, block: str, depths: Sequence[int]) -> Member:
    stages = (f"{width}x{depth}" for width, depth in zip(_WIDTHS, depths, strict=True))
    return Member(name, "resnet", {"block": block, "topology": " ".join(stages)})


def _mobilenetv2(depths: Sequence[int]) -> Member:
    stages = (
        f"{width}x{depth}-k3e{expansion}"
        for (width, expansion), depth in zip(_MOBILENETV2, (1, *depths, 1), strict=True)
    )
    return Member(f"mobilenetv2-{_digits(depths)}", "mobilenetv2", {"topology": " ".join(stages)})


def _digits(depths: Sequence[int]) -> str:
    return "".join(map(str, depths))
