"""What phones ask of a model: ONNX Runtime's own format, and operators that a phone's accelerators have."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from lightssl.deploy.onnx import first_line, quiet
from lightssl.errors import ExportError


@dataclass(frozen=True)
class Accelerator:
    """What a phone's accelerator could compute of a model, judged by kinds of operators alone: nothing was run."""

    name: str
    suitable: str  # yes, maybe or no
    nodes: int  # of the model, for one image
    supported_nodes: int
    partitions: int  # pieces that these make: between two, the processor computes
    unsupported_operators: tuple[str, ...]


def check_accelerators(model: bytes) -> tuple[Accelerator, ...]:
    """Judge a model by ONNX Runtime's mobile usability check, for one image at a time as accelerators ask for it.

    Empty where that cannot infer the model's shapes, which says nothing against the model.
    """
    with quiet(), TemporaryDirectory() as temporary:
        from onnxruntime.tools import onnx_model_utils as models
        from onnxruntime.tools.mobile_helpers import usability_checker as checker

        checks: dict[str, Callable[[onnx.ModelProto, bool], Any]] = {
            "NNAPI": checker.check_nnapi_partitions,
            "CoreML NeuralNetwork": partial(
                checker.check_coreml_partitions, config_filename="coreml_supported_neuralnetwork_ops.md"
            ),
            "CoreML MLProgram": partial(
                checker.check_coreml_partitions, config_filename="coreml_supported_mlprogram_ops.md"
            ),
        }
        path, optimised = Path(temporary, "model.onnx"), Path(temporary, "optimised.onnx")
        try:
            single = onnx.load_from_string(model)
            models.make_dim_param_fixed(single.graph, single.graph.input[0].type.tensor_type.shape.dim[0].dim_param, 1)
            onnx.save(single, path)
            models.optimize_model(path, optimised)
            shaped = models.ModelProtoWithShapeInfo(optimised).model_with_shape_info
            found = {name: check(shaped, True) for name, check in checks.items()}
        except Exception:  # the tools' errors have no common class
            return ()
    return tuple(
        Accelerator(
            name=name,
            suitable=info.suitability().name.lower(),
            nodes=info.num_nodes,
            supported_nodes=info.num_supported_nodes,
            partitions=info.num_partitions,
            unsupported_operators=tuple(sorted(info.unsupported_ops)),
        )
        for name, info in found.items()
    )


def to_ort(model: bytes, architecture: str) -> tuple[bytes, str]:
    """Convert a model to ONNX Runtime's own format, optimised for all processors of an architecture.

    Args:
        model: ONNX.
        architecture: The one that it is made for: ``any``, ``arm`` or ``x86``.

    Returns:
        The content of the ``.ort`` file, and the list of operators that it needs, from which ONNX Runtime can be built
        with no others: its ``build.sh`` takes it as ``--include_ops_by_config``.

    Raises:
        ExportError: The model cannot be converted.
    """
    with quiet(), TemporaryDirectory() as temporary:
        from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

        path = Path(temporary, "model.onnx")
        path.write_bytes(model)
        try:
            convert_onnx_models_to_ort(
                path,
                optimization_styles=[OptimizationStyle.Fixed],
                target_platform="arm" if architecture == "arm" else None,  # amd64 suits the one at hand alone
            )
            content = path.with_suffix(".ort").read_bytes()
            operators = path.with_suffix(".required_operators.config").read_text()
        except Exception as error:  # as above
            raise ExportError(f"The model cannot be converted to .ort: {first_line(error)}") from error
    # Comments name the folder that it was converted in.
    return content, "".join(line for line in operators.splitlines(keepends=True) if not line.startswith("#"))
