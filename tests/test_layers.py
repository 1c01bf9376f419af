"""The shape of the code: which module may import which, and how large its parts are."""

import ast
import statistics
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "recvae"
# a module imports from lower layers, or from its own without a circle
LAYERS = {
    0: "version errors files spaces params progress rows ids frames events description interactions topk metrics "
    "memory results threads validation paths quotes text text_file text_columns times parquet_files streams signals",
    1: "join saving cards download sample layouts datasets split batches evaluation breakdown closed_form histories "
    "rerank large shards rollcall world torchrun finite tensor_file",
    2: "nn",
    3: "callbacks checkpoint checkpoint_state live team train",
    4: "recommender models baselines candidates tuning search study inspection examples",
    5: "benchmark report bulk export integrations",
    6: "cli commands arguments tune_command recommend_command shard_command flags configuration __main__ __init__ "
    "public",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}
# files longer than 300 lines, each with the reason
LONG_FILES = {"export/numpy_scorer.py": "one file, which is copied to where recvae is not"}


def modules():
    return {path.relative_to(PACKAGE).with_suffix(""): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "recvae":
            yield node.module.removeprefix("recvae").lstrip(".") or "__init__"
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("recvae.") for a in node.names if a.name.startswith("recvae"))


def functions():
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                yield f"{path}.{node.name}", node.end_lineno - first.lineno + 1


def test_each_module_has_a_layer():
    assert {path.parts[0] for path in modules()} == set(LAYER_OF)


def test_imports_point_downwards():
    for path, tree in modules().items():
        if path.name == "__init__" and len(path.parts) == 1:
            continue
        for name in imports(tree):
            here, there = LAYER_OF[path.parts[0]], LAYER_OF[name.split(".")[0]]
            assert there <= here, f"{path} (layer {here}) imports {name} (layer {there})"


def test_there_is_no_circle():
    graph = {}
    for path, tree in modules().items():
        if path.name != "__init__":
            graph[".".join(path.parts)] = {name for name in imports(tree) if name != "__init__"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_functions_are_short():
    lengths = dict(functions())
    assert statistics.median(lengths.values()) <= 15
    long = {name: length for name, length in lengths.items() if length > 45}
    assert not long


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_begin_with_why(path):
    if str(path.relative_to(PACKAGE)) not in LONG_FILES:
        assert len(path.read_text().splitlines()) <= 300
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
