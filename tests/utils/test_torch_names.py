"""Names of torch without a promise of stability, and what is to be done when one vanishes or is no longer needed."""

import ast
import tomllib
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.utils.weak

ROOT = Path(__file__).parents[2]

# name -> what to use instead
NAMES = {
    "torch.distributed.distributed_c10d._get_default_store": "ProcessGroup.get_group_store, which torch 2.6 lacks",
    "torch.distributed.distributed_c10d._abort_process_group": "ProcessGroup.abort, which torch 2.6 lacks",
    "torch.Tensor._indices": "indices() of a tensor marked as coalesced",
    "torch.Tensor._values": "values() of a tensor marked as coalesced",
    "torch.utils.weak.WeakIdKeyDictionary": "a dictionary by id, with a weakref.finalize for each key",
    "torch.cpu._is_avx512_bf16_supported": "torch.cpu.get_capabilities, which torch 2.6 lacks",
    "torch.cpu._is_amx_tile_supported": "torch.cpu.get_capabilities, which torch 2.6 lacks",
}
PACKAGES = {"dist": "torch.distributed", "F": "torch.nn.functional"}


def private_names():
    """Dotted names that begin with torch and have a part with an underscore, or are of a tensor, in the package."""
    for path in sorted((ROOT / "recvae").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                root, _, rest = ast.unparse(node).partition(".")
                name = f"{PACKAGES.get(root, root)}.{rest}"
                if name.startswith("torch."):
                    yield name
                elif hasattr(torch.Tensor, node.attr) and not name.startswith(("self.", "cls.")):
                    yield f"torch.Tensor.{node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_"))


def test_every_private_name_of_torch_is_listed():
    assert set(private_names()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    found = torch
    for part in name.split(".")[1:]:
        assert hasattr(found, part), f"torch {torch.__version__} has no {name}: use {NAMES[name]}"
        found = getattr(found, part)


def test_the_lowest_torch_is_the_one_for_which_they_are_needed():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch>=2.6" in dependencies, "replace the names that the list says torch 2.6 lacks an alternative to"


def test_the_product_that_torch_compile_generates_is_there():
    if torch.backends.mkldnn.is_available():  # used by its name as text; without it F.linear does the same
        assert callable(torch.ops.mkldnn._linear_pointwise)


def test_private_parts_of_a_sparse_tensor_are_those_of_the_public_names():
    rows = torch.sparse_coo_tensor([[1, 1]], torch.ones(2, 3), (4, 3), check_invariants=True)
    assert rows._indices().tolist() == [[1, 1]]
    assert rows._values().shape == (2, 3)


def test_what_the_hardware_computes_in_has_the_same_answer_by_either_name():
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        assert bool(capabilities.get("avx512_bf16")) == torch.cpu._is_avx512_bf16_supported()
        assert bool(capabilities.get("amx_tile")) == torch.cpu._is_amx_tile_supported()
