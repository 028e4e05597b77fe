"""Training: the loop, optimisers and schedules, logs. A new optimiser is a function and a line in ``OPTIMIZERS``."""

from lightssl.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "lars": "lightssl.optim:lars",
        "sgd": "lightssl.optim:sgd",
        "adamw": "lightssl.optim:adamw",
    },
)
