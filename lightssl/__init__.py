"""Self-supervised learning for low-compute networks: pre-train, evaluate, export, time on the device.

Everything the command line does is a function here::

    import lightssl

    lightssl.preview_views("mobilenetv2_dino", data="photos/")
    run = lightssl.pretrain("mobilenetv2_dino", data="photos/")
    lightssl.evaluate(run)
    lightssl.embed(run, data="photos/", out="features.parquet")
    lightssl.export(run, int8=True)
    lightssl.verify(run=run)
    lightssl.bench([run.onnx_path])
    lightssl.report(run)
    lightssl.search_network({"flops": 300e6}, data="photos/")
    lightssl.search_heads("simsiam", data="photos/")
    lightssl.study_grid("one-network-116")
    lightssl.run_study("mine.yaml", train="photos/", downstream=["flowers/", "birds/"])
    lightssl.pick_network(downstream="mushrooms/", limits={"flops": 300e6})
    lightssl.sweep_views(axes=["boundary=0.14,0.2,0.3"], data="photos/")

Importing this module is quick: torch is imported when one of these is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lightssl.errors import LightSSLError
    from lightssl.pipeline import (
        bench,
        compare,
        embed,
        evaluate,
        evaluate_suite,
        export,
        fit_profile,
        import_weights,
        load_backbone,
        pick_network,
        pretrain,
        preview_views,
        repeat_point,
        report,
        resume,
        resume_head_search,
        resume_search,
        resume_study,
        resume_sweep,
        run_study,
        search_heads,
        search_network,
        study_grid,
        study_report,
        sweep_views,
        verify,
    )

_PUBLIC = {
    "LightSSLError": "lightssl.errors",
    "bench": "lightssl.pipeline",
    "compare": "lightssl.pipeline",
    "embed": "lightssl.pipeline",
    "evaluate": "lightssl.pipeline",
    "evaluate_suite": "lightssl.pipeline",
    "export": "lightssl.pipeline",
    "fit_profile": "lightssl.pipeline",
    "import_weights": "lightssl.pipeline",
    "load_backbone": "lightssl.pipeline",
    "pick_network": "lightssl.pipeline",
    "pretrain": "lightssl.pipeline",
    "preview_views": "lightssl.pipeline",
    "repeat_point": "lightssl.pipeline",
    "report": "lightssl.pipeline",
    "resume": "lightssl.pipeline",
    "resume_head_search": "lightssl.pipeline",
    "resume_search": "lightssl.pipeline",
    "resume_study": "lightssl.pipeline",
    "search_heads": "lightssl.pipeline",
    "resume_sweep": "lightssl.pipeline",
    "run_study": "lightssl.pipeline",
    "search_network": "lightssl.pipeline",
    "study_grid": "lightssl.pipeline",
    "study_report": "lightssl.pipeline",
    "sweep_views": "lightssl.pipeline",
    "verify": "lightssl.pipeline",
}

__all__ = [
    "LightSSLError",
    "__version__",
    "bench",
    "compare",
    "embed",
    "evaluate",
    "evaluate_suite",
    "export",
    "fit_profile",
    "import_weights",
    "load_backbone",
    "pick_network",
    "pretrain",
    "preview_views",
    "repeat_point",
    "report",
    "resume",
    "resume_head_search",
    "resume_search",
    "resume_study",
    "resume_sweep",
    "run_study",
    "search_heads",
    "search_network",
    "study_grid",
    "study_report",
    "sweep_views",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'lightssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
