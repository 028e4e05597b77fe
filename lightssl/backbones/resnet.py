"""ResNets (He et al. 2015, arXiv 1512.03385) without their classifier."""

from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock, Bottleneck

from lightssl.backbones.base import Stage
from lightssl.backbones.batchnorm import start_near_linear
from lightssl.backbones.topology import BlockPart, Grammar, Topology, TopologyBackbone

_GRAMMAR = Grammar("", "64x2 128x2 256x2 512x2")
_WIDTHS = (64, 128, 256, 512)  # of torchvision's stages
_BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(TopologyBackbone):
    """A ResNet up to the pooled features, as torchvision builds it; its stages are ``layer1`` to ``layer4``.

    Args:
        topology: Width and blocks of each of the four stages. Bottleneck stages are four times as wide between blocks.
        block: Kind of the blocks.
        stem: ``"small"`` replaces the 7x7 stride-2 convolution and the max-pool by one 3x3 convolution, as SimCLR does
            for CIFAR-10.
        init: ``"near_linear"`` begins every batch norm with bias 1, largely in the linear range of the ReLU after it.
            Two views of an image then still look alike at the start, which short runs need.

    Raises:
        ConfigError: ``topology`` is not one of a ResNet.
    """

    grammar = _GRAMMAR

    def __init__(
        self,
        *,
        topology: Annotated[str, _GRAMMAR],
        block: Literal["basic", "bottleneck"] = "basic",
        stem: Literal["standard", "small"] = "standard",
        init: Literal["torchvision", "near_linear"] = "torchvision",
    ) -> None:
        super().__init__()
        stages = self.grammar.parse(topology)
        network = _Network(_BLOCKS[block], stages)
        self.feature_width = network.inplanes
        network.fc = nn.Identity()
        finest = 4
        if stem == "small":
            network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
            finest = 1
        if init == "near_linear":
            start_near_linear(network)
        self.network = network
        self._depths = [len(stage.blocks) for stage in stages]
        widths = [stage.width * _BLOCKS[block].expansion for stage in stages]
        self.stages = tuple(Stage(width, finest * 2**i) for i, width in enumerate(widths))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""
        return self.network(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map a stage: see :meth:`Backbone.feature_maps`."""
        network = self.network
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        maps = []
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def block_names(self) -> list[list[str]]:
        """Names of the blocks of each stage: see :class:`TopologyBackbone`."""
        return [[f"network.layer{i}.{j}" for j in range(depth)] for i, depth in enumerate(self._depths, 1)]

    def block_part(
        self, stage: int, position: int, inputs: int | None, width: int, settings: tuple[int, ...]
    ) -> BlockPart:
        """Say what a smaller block takes of the block here: see :class:`TopologyBackbone`."""
        name = self.block_names()[stage][position]
        block: Any = self.get_submodule(name)
        outputs = width * block.expansion
        channels = self.network.bn1.num_features if inputs is None else inputs * block.expansion
        return BlockPart(
            outputs=outputs,
            inputs={f"{name}.{layer}": width for layer in ("conv2", "conv3") if hasattr(block, layer)},
            adds_input=channels == outputs and (position > 0 or stage == 0),  # other stages begin with a stride
            projection=f"{name}.downsample" if block.downsample is not None else "",
        )


class _Network(resnet.ResNet):
    """torchvision's ResNet with stages of any width."""

    def __init__(self, block: type[BasicBlock | Bottleneck], stages: Topology) -> None:
        self._widths = {published: stage.width for published, stage in zip(_WIDTHS, stages, strict=True)}
        super().__init__(block, [len(stage.blocks) for stage in stages])

    def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, self._widths[planes], *args, **options)


class _PublishedResNet(ResNet):
    """A ResNet of the paper."""

    _topology: ClassVar[str]
    _block: ClassVar[Literal["basic", "bottleneck"]]

    def __init__(
        self,
        *,
        stem: Literal["standard", "small"] = "standard",
        init: Literal["torchvision", "near_linear"] = "torchvision",
    ) -> None:
        super().__init__(topology=self._topology, block=self._block, stem=stem, init=init)


class ResNet18(_PublishedResNet):
    """ResNet18, 512 wide."""

    _topology, _block = "64x2 128x2 256x2 512x2", "basic"


class ResNet34(_PublishedResNet):
    """ResNet34, 512 wide."""

    _topology, _block = "64x3 128x4 256x6 512x3", "basic"


class ResNet50(_PublishedResNet):
    """ResNet50, 2048 wide."""

    _topology, _block = "64x3 128x4 256x6 512x3", "bottleneck"
