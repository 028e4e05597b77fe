"""The whole flow, from images to a timed ONNX file.

    images -> views -> batches -> method (backbone + heads) -> loss -> checkpoint -> evaluate -> export -> latency

Each public function is one command. This is the one place where a recipe is turned into arguments: everything below
takes plain, typed values.
"""

from lightssl.pipeline.building import build_backbone, build_method
from lightssl.pipeline.embedding import embed
from lightssl.pipeline.evaluating import evaluate
from lightssl.pipeline.exporting import export
from lightssl.pipeline.importing import import_weights
from lightssl.pipeline.loading import load_backbone
from lightssl.pipeline.previewing import preview_views
from lightssl.pipeline.reporting import compare, report
from lightssl.pipeline.searching import pretrain_winner, resume_search, search_network
from lightssl.pipeline.searching_heads import resume_head_search, retrain_heads, search_heads
from lightssl.pipeline.study_picking import pick_network
from lightssl.pipeline.study_reporting import study_report
from lightssl.pipeline.study_running import resume_study, run_study
from lightssl.pipeline.studying import study_grid
from lightssl.pipeline.suite import evaluate_suite
from lightssl.pipeline.sweeping import repeat_point, resume_sweep, sweep_views
from lightssl.pipeline.timing import bench, fit_profile
from lightssl.pipeline.training import default_scale, pretrain, resume
from lightssl.pipeline.verifying import verify

__all__ = [
    "bench",
    "build_backbone",
    "build_method",
    "compare",
    "default_scale",
    "embed",
    "evaluate",
    "evaluate_suite",
    "export",
    "fit_profile",
    "import_weights",
    "load_backbone",
    "pick_network",
    "pretrain",
    "pretrain_winner",
    "preview_views",
    "repeat_point",
    "report",
    "resume",
    "resume_head_search",
    "resume_search",
    "resume_study",
    "resume_sweep",
    "retrain_heads",
    "run_study",
    "search_heads",
    "search_network",
    "study_grid",
    "study_report",
    "sweep_views",
    "verify",
]
