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
        "resnet50_v1": "lightssl.backbones.revisited:ResNet50V1",
        "resnet50_v2": "lightssl.backbones.revisited:ResNet50V2",
        "revnet50": "lightssl.backbones.revisited:RevNet50",
        "vgg19_bn": "lightssl.backbones.vgg:VGG19BN",
        "vit_tiny": "lightssl.backbones.vit:ViTTiny",
        "vit": "lightssl.backbones.vit:ViT",
        "timm": "lightssl.backbones.timm_network:TimmNetwork",
    },
)
