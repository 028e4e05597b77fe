"""Training: the loop, optimisers and schedules, logs. A new optimiser is a function and a line in ``OPTIMIZERS``."""

from lightssl.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "lars": "lightssl.train.optim:lars",
        "sgd": "lightssl.train.optim:sgd",
        "adamw": "lightssl.train.optim:adamw",
    },
)
