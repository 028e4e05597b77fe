"""Kinds of device that a model can be timed on. One file and one line here make a new one.

A target is a function ``bench(model: Path, *, network: nn.Module | None, ...) -> list[Measurement]``:

- ``model`` is an ONNX file; ``network`` is the torch network it was exported from, where there is one: rows say how far
  the features are from its own.
- All other arguments are keyword-only and are the keys of ``settings`` in the device profiles
  (``export/targets/*.yaml``) that name the target; a profile states every one that has no default.
- It returns one :class:`~lightssl.deploy.latency.Measurement` a setting, made with ``summarise``, and raises
  TargetError when the device cannot be reached, lacks something or fails. ``predict`` runs nothing and returns
  :class:`~lightssl.deploy.latency.Prediction` rows instead.
"""

from lightssl.registry import Registry

TARGETS = Registry(
    "target",
    {
        "adb": "lightssl.deploy.targets.adb:bench_adb",
        "cpu": "lightssl.deploy.targets.cpu:bench_cpu",
        "ssh": "lightssl.deploy.targets.ssh:bench_ssh",
        "web": "lightssl.deploy.targets.web:bench_web",
        "predict": "lightssl.deploy.targets.predict:bench_predict",
    },
)
