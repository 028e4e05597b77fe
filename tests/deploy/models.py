"""Models of one node, for tests of what runs them."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def save_node(path: Path, node: str, *inputs: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """Write a model of one operator whose inputs have these shapes."""
    names = [f"x{index}" for index in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(node, names, ["y"])],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
