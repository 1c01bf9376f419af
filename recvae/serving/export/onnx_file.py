"""Export to ONNX: one graph from the histories of users to their lists.

The graph is built from the traced steps (`program`), not by torch's own exporter: that one turns sums over ragged rows
into ScatterND with reduction, which onnxruntime computes incorrectly on several threads if rows repeat, and it writes
the paths of source files into the model. Here a loop over users computes the weighted sums of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recvae.errors import NotSupportedError
from recvae.models.base.model_file import File, check_file, write_bytes
from recvae.serving.export.numpy_scorer import resolved
from recvae.serving.export.program import Program, program
from recvae.utils.optional import require
from recvae.utils.topk import PAD_ID, PAD_SCORE
from recvae.version import __version__

OPSET, IR = 18, 8
LARGEST = 2**31 - 2**20  # bytes of all arrays; protobuf messages are limited to 2 GiB

Input = str | int | float | list[int]


def export_onnx(model: Any, file: File) -> None:
    """Write a fitted network as an ONNX file, with a graph that scores and ranks.

    Parameters
    ----------
    model : Recommender
        A fitted MultVAE, MultDAE, RecVAE, HVamp or HybridVAE.
    file : str or Path or file object
        A path, which is written atomically, or an open binary file. The file contains no code.

    Raises
    ------
    NotFittedError, InvalidTypeError
        If it is not a fitted model.
    NotSupportedError
        If the model is not a network, or larger than 2 GiB, which an ONNX file cannot hold.
    MissingDependencyError
        If onnx is not installed.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The inputs of the graph are the arrays of a CSR matrix, for any number of users and events:

        items (E,) int64            columns of the users' items, each at most once for a user
        offsets (B + 1,) int64      user b has items[offsets[b] : offsets[b + 1]]
        values (E,) float32 > 0     only for models that read values; log1p is in the graph
        N () int64                  length of the lists

    Its outputs are the best items that are not in the user's history, by descending score, ties by ascending id, padded
    with -1 and -FLT_MAX:

        ids (B, N) int64, scores (B, N) float32

    The file's metadata has the model's class, the version of recvae, n_items, values and the raw item ids as JSON,
    under "recvae". For columns out of range the ONNX runtime raises an error.
    """
    check_file(file, "write")
    onnx = _onnx()
    content = program(model)
    size = sum(array.nbytes for array in content.arrays.values())
    if size > LARGEST:
        raise NotSupportedError(
            f"Expected a model of less than 2 GiB, the most that an ONNX file can hold, got {size / 2**30:.1f} GiB; "
            f"export_numpy has no such limit."
        )
    onnx_model = onnx.helper.make_model(
        _graph(content),
        ir_version=IR,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="recvae",
        producer_version=__version__,
    )
    about = {name: content.description[name] for name in ("class", "version", "n_items", "values", "item_ids")}
    onnx.helper.set_model_props(onnx_model, {"recvae": json.dumps(about)})
    write_bytes(file, onnx_model.SerializeToString())


class Nodes:
    """The nodes of a graph that is being built, and its constants by name.

    A call adds a node and returns the name of its output, or the names of several.
    """

    def __init__(self, constants: dict[str, NDArray[Any]], prefix: str = ""):
        self.nodes: list[Any] = []
        self.constants, self.prefix = constants, prefix

    def __call__(self, operator: str, *inputs: Input, **attributes: Any) -> str:
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, outputs: int, operator: str, *inputs: Input, **attributes: Any) -> list[str]:
        names = [f"{self.prefix}{operator}_{len(self.nodes)}_{output}" for output in range(outputs)]
        input_names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(_onnx().helper.make_node(operator, input_names, names, **attributes))
        return names

    def constant(self, value: int | float | list[int]) -> str:
        """Add a constant: floats as float32, integers as int64. -> its name"""
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else np.int64)
        name = f"{array.dtype}{array.tolist()}"
        self.constants[name] = array
        return name


def _graph(content: Program) -> Any:
    """The graph from the inputs to the lists."""
    helper, types = _onnx().helper, _onnx().TensorProto
    description, n_items = content.description, content.description["n_items"]
    nodes = Nodes(dict(content.arrays))
    items = nodes("Where", nodes("Less", "items", 0), n_items, "items")  # not to count from the end
    first, *paths = _by_user(nodes, content, items, _values(nodes, description["values"]))
    known: dict[str, Any] = {name: name for name in content.arrays}
    known["first"] = nodes("Add", first, "first.bias")
    for name, step, arguments in description["steps"]:
        known[name] = STEPS[step](nodes, *resolved(arguments, known))
    scores = nodes("Gemm", known[description["hidden"]], "last.weight", "last.bias", transB=1)
    for path in paths:
        scores = nodes("Add", scores, path)
    _rank(nodes, scores, items, n_items)
    sizes: dict[str, tuple[int, list[Any]]] = {
        "items": (types.INT64, ["events"]),
        "offsets": (types.INT64, ["users + 1"]),
        "values": (types.FLOAT, ["events"]),
        "N": (types.INT64, []),
        "ids": (types.INT64, ["users", "N"]),
        "scores": (types.FLOAT, ["users", "N"]),
    }
    graph_inputs = ["items", "offsets", *(["values"] if description["values"] != "binary" else []), "N"]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, *sizes[name]) for name in names]
        for names in (graph_inputs, ["ids", "scores"])
    )
    arrays = [_onnx().numpy_helper.from_array(array, name) for name, array in nodes.constants.items()]
    return helper.make_graph(nodes.nodes, "recvae", inputs, outputs, arrays)


def _values(nodes: Nodes, values: str) -> str:
    """The values of the events as the model reads them. -> (E,)"""
    if values == "binary":
        return nodes("Expand", 1.0, nodes("Shape", "items"))
    if values == "raw":
        return "values"
    # log1p(x) = x log(u) / (u - 1) with u = 1 + x as rounded to float32; x itself if u is 1
    u = nodes("Add", "values", 1.0)
    ratio = nodes("Div", nodes("Log", u), nodes("Sub", u, 1.0))
    return nodes("Where", nodes("Equal", u, 1.0), "values", nodes("Mul", "values", ratio))


def _by_user(nodes: Nodes, content: Program, items: str, values: str) -> list[str]:
    """Loop over users: x W of the row x at unit norm (B, H), and for a HybridVAE the path a x B (B, I)."""
    helper, types = _onnx().helper, _onnx().TensorProto
    body = Nodes(nodes.constants, prefix="user.")
    index = body("Reshape", "user", [1])
    events = body("Gather", "offsets", index), body("Gather", "offsets", body("Add", index, [1]))
    user_items, x = (body("Slice", part, *events) for part in (items, values))
    unit = body("Div", x, body("ReduceL2", x))
    results = [body("MatMul", unit, body("Gather", "first.weight", user_items))]
    widths = [content.arrays["first.weight"].shape[1]]
    if content.description["path_weight"] is not None:
        path = _sparse_path(body, user_items, x) if "path.data" in content.arrays else _dense_path(body, user_items, x)
        results.append(body("Mul", path, content.description["path_weight"]))
        widths.append(content.description["n_items"])
    inputs = [helper.make_tensor_value_info(*pair, []) for pair in (("user", types.INT64), ("go", types.BOOL))]
    outputs = [helper.make_tensor_value_info(body("Identity", "go"), types.BOOL, [])]
    outputs += [
        helper.make_tensor_value_info(name, types.FLOAT, [width]) for name, width in zip(results, widths, strict=True)
    ]
    n_users = nodes("Sub", nodes("Size", "offsets"), 1)
    loop = helper.make_graph(body.nodes, "user", inputs, outputs)
    return nodes.several(len(results), "Loop", n_users, "", body=loop)


def _dense_path(body: Nodes, items: str, x: str) -> str:
    return body("MatMul", x, body("Gather", "path", items))


def _sparse_path(body: Nodes, items: str, x: str) -> str:
    """x B for a CSR matrix B: concatenates the items' rows of B and adds each entry to its column. -> (I,)"""
    starts = body("Gather", "path.indptr", items)  # (n,)
    lengths = body("Sub", body("Gather", "path.indptr", body("Add", items, 1)), starts)
    ends = body("CumSum", lengths, 0)
    total = body("ReduceSum", lengths, keepdims=0)
    row = _rows(body, ends, total)  # (total,)
    shift = body("Sub", starts, body("Sub", ends, lengths))
    cells = body("Add", body("Range", 0, total, 1), body("Gather", shift, row))
    path = body("Mul", body("Gather", "path.data", cells), body("Gather", x, row))
    zeros = body("Expand", 0.0, [len(body.constants["path.indptr"]) - 1])
    return body("ScatterElements", zeros, body("Gather", "path.indices", cells), path, reduction="add")


def _rows(nodes: Nodes, ends: str, total: str) -> str:
    """The row of each of `total` events: the number of rows with an end at or before its index. -> (total,)"""
    size = nodes("Reshape", total, [1])
    zeros, ones = nodes("Expand", 0, nodes("Add", size, [1])), nodes("Expand", 1, nodes("Shape", ends))
    ending = nodes("ScatterElements", zeros, ends, ones, reduction="add")  # on one axis a single thread adds
    return nodes("Slice", nodes("CumSum", ending, 0), [0], size)


def _rank(nodes: Nodes, scores: str, items: str, n_items: int) -> None:
    """Add the outputs `ids` and `scores`: the N best of the scores (B, I) of each user, without seen items."""
    minus_infinity = float("-inf")
    rows = _rows(nodes, nodes("Slice", "offsets", [1], [np.iinfo(np.int64).max]), nodes("Size", "items"))
    cells = nodes("Concat", *(nodes("Unsqueeze", part, [1]) for part in (rows, items)), axis=1)
    seen = nodes("Expand", minus_infinity, nodes("Shape", "items"))
    k = nodes("Min", "N", n_items)
    best, ids = nodes.several(2, "TopK", nodes("ScatterND", scores, cells, seen), nodes("Reshape", k, [1]))
    listed_items = nodes("Greater", best, minus_infinity)
    missing = nodes("Concat", [0, 0, 0], nodes("Reshape", nodes("Sub", "N", k), [1]), axis=0)
    for name, part, pad in (("ids", ids, PAD_ID), ("scores", best, PAD_SCORE)):
        listed = nodes("Pad", nodes("Where", listed_items, part, pad), missing, pad)
        nodes.nodes.append(_onnx().helper.make_node("Identity", [listed], [name]))


def _number(x: Any) -> Input:
    return x if isinstance(x, str) else float(x)


def _silu(nodes: Nodes, x: str) -> str:
    return nodes("Mul", x, nodes("Sigmoid", x))


def _glu(nodes: Nodes, x: str, axis: int = -1) -> str:
    value, gate = nodes.several(2, "Split", x, axis=axis, num_outputs=2)
    return nodes("Mul", value, nodes("Sigmoid", gate))


def _layer_norm(nodes: Nodes, x: str, _: list[int], weight: str, bias: str, eps: float, *__: Any) -> str:
    return nodes("LayerNormalization", x, weight, bias, epsilon=eps)


# torch's operators, with their arguments in torch's order
STEPS: dict[str, Callable[..., Any]] = {
    "add": lambda nodes, x, y: nodes("Add", x, _number(y)),
    "cat": lambda nodes, parts, axis: nodes("Concat", *parts, axis=axis),
    "chunk": lambda nodes, x, n, axis: nodes.several(n, "Split", x, axis=axis, num_outputs=n),
    "clamp_min": lambda nodes, x, least: nodes("Max", x, _number(least)),
    "div": lambda nodes, x, y: nodes("Div", x, _number(y)),
    "getitem": lambda nodes, parts, index: parts[index],
    "glu": _glu,
    "layer_norm": _layer_norm,
    "linalg_vector_norm": lambda nodes, x, order, axes, keepdims: nodes("ReduceL2", x, axes, keepdims=int(keepdims)),
    "linear": lambda nodes, x, weight, bias: nodes("Gemm", x, weight, bias, transB=1),
    "silu": _silu,
    "tanh": lambda nodes, x: nodes("Tanh", x),
}


def _onnx() -> ModuleType:
    return require("onnx", extra="onnx", purpose="Writing ONNX files")
