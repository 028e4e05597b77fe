"""Networks that turn images into features. A new one is a file here and a line in ``BACKBONES``."""

from lightssl.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        "mobilenetv2": "lightssl.backbones.mobilenetv2:MobileNetV2",
        "resnet18": "lightssl.backbones.resnet:ResNet18",
    },
)
