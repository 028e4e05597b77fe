"""What a mobile runtime has to run for an ONNX network: its kernels, with the work and the memory traffic of each.

Runtimes for phones and boards fold batch norm into the convolution before it, apply activations while its result is
still in a register, and turn reshapes into nothing. What is left are kernels, each a pass over memory.
"""

from collections.abc import Mapping, Sequence, Set
from math import prod
from pathlib import Path
from typing import NamedTuple

import onnx

from lightssl.deploy.onnx import describe_model
from lightssl.errors import TargetError

Shape = tuple[int, ...]

BYTES = 4  # of a float32 value

# Kinds of kernel that multiply and accumulate. Mobile runtimes have fast algorithms for the first and a loop of its own
# for each other.
MAC_KINDS = ("conv3x3", "conv", "pointwise", "depthwise", "matmul")

# Kinds that only move data through the processor.
_MOVERS = {
    "pooling": ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"),
    "layout": ("Concat", "Slice", "Split", "Transpose", "Gather", "Pad", "Expand", "Tile"),
    "normalisation": ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "LRN", "Softmax"),
}
_MOVER_OF = {operator: kind for kind, operators in _MOVERS.items() for operator in operators}
_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"}
# Free behind another kernel; a kernel of its own, "elementwise", where the results of two kernels meet.
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Min", "Max", "Exp", "Erf"}
_ACTIVATIONS = {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh"}
_ELEMENTWISE = {*_ARITHMETIC, *_ACTIVATIONS, "Gelu", "Mish", "Softplus", "BatchNormalization"}

KINDS = (*MAC_KINDS, "elementwise", *_MOVERS)


class Kernel(NamedTuple):
    """One kernel, for one image."""

    kind: str  # one of KINDS
    macs: int  # multiply-accumulates; 0 for kinds that only move data
    bytes: int  # of what it reads, weights included, and writes, in float32


def convolution(
    inputs: Shape, outputs: Shape, *, kernel: Sequence[int], strides: Sequence[int] = (1,), groups: int = 1
) -> Kernel:
    """Describe a convolution without building it, for example for a search over architectures.

    Args:
        inputs, outputs: [C, H, W].
        kernel: Height and width of its window.
        strides: Between windows. Dilation counts as a stride: neither leaves room for the fast algorithms.
        groups: As many as input channels make it depthwise.
    """
    weights = outputs[0] * (inputs[0] // groups) * prod(kernel)
    if groups == inputs[0] > 1:
        kind = "depthwise"
    elif groups == 1 and prod(kernel) == 1:
        kind = "pointwise"
    elif groups == 1 and tuple(kernel) == (3, 3) and set(strides) == {1}:
        kind = "conv3x3"
    else:
        kind = "conv"
    return Kernel(kind, weights * prod(outputs[1:]), BYTES * (prod(inputs) + weights + prod(outputs)))


def count_kernels(path: Path, *, image_size: int | None = None) -> list[Kernel]:
    """List the kernels of an ONNX model, for one image.

    Args:
        path: ONNX file of a float network.
        image_size: Height and width to count at, in pixels, by default those in the file.

    Raises:
        ExportError: There is no such file, or it is not a whole ONNX model.
        TargetError: It holds operators that are not known here, or sizes that are free.
    """
    describe_model(path)  # says what is wrong with a file that is none
    model = onnx.load(path, load_external_data=False)
    images = _computed_from_images(model.graph)
    nodes = [node for node in model.graph.node if not images.isdisjoint(node.output)]
    unknown = {node.op_type for node in nodes} - {*_VIEWS, *_ELEMENTWISE, *_MOVER_OF, "Conv", "Gemm", "MatMul"}
    if unknown:
        raise TargetError(
            f"{path} has operators whose time cannot be predicted: {', '.join(sorted(unknown))}.",
            "Time it on the device itself. Of quantised models, predict the float one.",
        )
    counter = _Counter(path, images, _infer_shapes(path, model, image_size))
    for node in nodes:
        counter.visit(node)
    return counter.kernels


def _computed_from_images(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that depend on the images; runtimes compute all others, such as shapes, once for all."""
    weights = {weight.name for weight in graph.initializer}
    tensors = {value.name for value in graph.input} - weights
    for node in graph.node:
        if node.op_type != "Shape" and not tensors.isdisjoint(node.input):
            tensors.update(node.output)
    return tensors


def _infer_shapes(path: Path, model: onnx.ModelProto, image_size: int | None) -> dict[str, Shape]:
    """Return the shape of every tensor of a known size, for one image."""
    graph = model.graph
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
        for dim in dims[2:] if image_size is not None else ():
            dim.dim_value = image_size
    graph.ClearField("value_info")  # what the exporter found, at another size
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise TargetError(f"{path} does not work on one image of {image_size or 'its own'} pixels.") from error
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


class _Counter:
    """Turns the nodes of a graph, in their order, into kernels.

    Args:
        path: For messages.
        images: The tensors that depend on the images.
        shapes: Of all tensors.
    """

    def __init__(self, path: Path, images: Set[str], shapes: Mapping[str, Shape]) -> None:
        self.kernels: list[Kernel] = []
        self._path, self._images, self._shapes = path, images, shapes
        # Which pass over memory makes a tensor: what is computed from one pass alone is fused into it.
        self._pass: dict[str, str] = {}

    def visit(self, node: onnx.NodeProto) -> None:
        """Add the kernel of a node that depends on the images, unless it is fused into another one."""
        operator, computed = node.op_type, [name for name in node.input if name in self._images]
        sources = {self._pass.get(name, name) for name in computed}
        fused = operator in _VIEWS or (operator in _ELEMENTWISE and len(sources) == 1)
        source = self._pass.get(computed[0], computed[0]) if fused else node.output[0]
        self._pass.update(dict.fromkeys(node.output, source))
        if fused:
            return
        if operator == "Conv":
            self.kernels.append(self._convolution(node))
        elif operator in ("Gemm", "MatMul"):
            self.kernels.append(self._product(node, "pointwise" if len(computed) == 1 else "matmul"))
        else:
            kind = _MOVER_OF.get(operator, "elementwise")
            self.kernels.append(Kernel(kind, 0, self._bytes([*computed, *node.output])))

    def _convolution(self, node: onnx.NodeProto) -> Kernel:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        return convolution(
            self._shape(node.input[0])[1:],
            self._shape(node.output[0])[1:],
            kernel=self._shape(node.input[1])[2:],
            strides=[*attributes.get("strides", [1]), *attributes.get("dilations", [1])],
            groups=attributes.get("group", 1),
        )

    def _product(self, node: onnx.NodeProto, kind: str) -> Kernel:
        transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
        summed = self._shape(node.input[0])[-2 if transposed else -1]
        macs = prod(self._shape(node.output[0])) * summed
        return Kernel(kind, macs, self._bytes([*node.input[:2], node.output[0]]))

    def _bytes(self, names: Sequence[str]) -> int:
        return BYTES * sum(prod(self._shape(name)) for name in names)

    def _shape(self, name: str) -> Shape:
        if name not in self._shapes:
            raise TargetError(f"{self._path} leaves the size of {name!r} free.", "Export it with fixed sizes.")
        return self._shapes[name]
