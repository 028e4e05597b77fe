"""Self-supervised methods. A new one is a file here and a line in ``METHODS``."""

from lightssl.registry import Registry

METHODS = Registry("method", {"dino": "lightssl.methods.dino:DINO"})
