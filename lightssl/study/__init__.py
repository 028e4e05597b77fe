"""Studies: many networks on many tasks, to tell which network is for which.

A grid names the networks of a study. It is a function without arguments that returns its members; a new one is a
function in ``grids.py``, or in a file of its own, and a line in ``GRIDS``.
"""

from lightssl.registry import Registry

GRIDS = Registry(
    "grid",
    {
        "one-network-116": "lightssl.study.grids:one_network",
        "basic-81": "lightssl.study.grids:basic",
        "revisiting": "lightssl.study.grids:revisiting",
    },
)
