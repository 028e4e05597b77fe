"""Networks that turn images into features. A new one is a file here and a line in ``BACKBONES``."""

from lightssl.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        "mobilenetv2": "lightssl.backbones.mobilenetv2:MobileNetV2",
        "resnet18": "lightssl.backbones.resnet:ResNet18",
        "resnet34": "lightssl.backbones.resnet:ResNet34",
        "resnet50": "lightssl.backbones.resnet:ResNet50",
        "resnet": "lightssl.backbones.resnet:ResNet",
        "vit_tiny": "lightssl.backbones.vit:ViTTiny",
        "vit": "lightssl.backbones.vit:ViT",
        "timm": "lightssl.backbones.timm_network:TimmNetwork",
    },
)
