"""Self-supervised methods. A new one is a file here and a line in ``METHODS``."""

from lightssl.registry import Registry

METHODS = Registry(
    "method",
    {
        "dino": "lightssl.methods.dino:DINO",
        "swav": "lightssl.methods.swav:SwAV",
        "mocov2": "lightssl.methods.mocov2:MoCoV2",
        "simsiam": "lightssl.methods.simsiam:SimSiam",
        "simclr": "lightssl.methods.simclr:SimCLR",
        "rotation": "lightssl.methods.rotation:Rotation",
        "exemplar": "lightssl.methods.exemplar:Exemplar",
        "relative_patch": "lightssl.methods.relative_patch:RelativePatch",
        "jigsaw": "lightssl.methods.jigsaw:Jigsaw",
    },
)
