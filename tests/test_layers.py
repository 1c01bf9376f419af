"""The shape of the code: which module may import which, and how large its parts are."""

import ast
import functools
import io
import statistics
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recvae

PACKAGE = Path(__file__).parents[1] / "recvae"
# from the top of the house to its ground: a room imports from rooms below it, and within itself without a circle
ROOMS = [
    *("__init__", "__main__", "cli", "benchmark", "serving", "tuning", "models", "training", "nn"),
    *("distributed", "datasets", "evaluation", "data", "utils", "errors", "version"),
]
LEVEL = {room: len(ROOMS) - place for place, room in enumerate(ROOMS)}
# files with more than 300 lines of code, each with the reason
LONG_FILES = {"serving/export/numpy_scorer.py": "one file, which is copied to where recvae is not"}


@functools.cache
def modules():
    return {path.relative_to(PACKAGE).with_suffix(""): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "recvae":
            yield node.module.removeprefix("recvae").lstrip(".") or "__init__"
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("recvae.") for a in node.names if a.name.startswith("recvae"))


def lines_of_code(source):
    """Lines with code on them: docstrings, comments and blank lines apart."""
    words = tokenize.generate_tokens(io.StringIO(source).readline)
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {line for word in words if word.type not in layout for line in range(word.start[0], word.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def functions():
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                yield f"{path}.{node.name}", node.end_lineno - first.lineno + 1


def test_the_rooms_are_these():
    assert {path.parts[0] for path in modules()} == set(ROOMS)
    assert len(ROOMS) <= 16


def test_imports_point_downwards():
    for path, tree in modules().items():
        if path.name == "__init__" and len(path.parts) == 1:
            continue
        for name in imports(tree):
            assert LEVEL[name.split(".")[0]] <= LEVEL[path.parts[0]], f"{path} imports {name}, which is above it"


def test_public_names_have_one_module_each():
    assert set(recvae._MODULES) == set(recvae.__all__)
    assert all(hasattr(recvae, name) for name in recvae.__all__)


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
        assert lines_of_code(path.read_text()) <= 300
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
