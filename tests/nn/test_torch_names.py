"""Names of torch that are not public: where the package uses any, and that the installed torch still has them."""

import re
from pathlib import Path

import torch

import recvae

PRIVATE = re.compile(
    r"torch\.ops\.\w+(?:, \"\w+\"|\.\w+)|torch\.(?:\w+\.)*_[a-z]\w*|distributed_c10d\._\w+|\.(?:_indices|_values)\("
)
# why each is used: no public name does it
REASONS = {
    'torch.ops.mkldnn, "_linear_pointwise"': "the oneDNN product that torch.compile generates; F.linear without it",
    "torch.cpu._is_avx512_bf16_supported": "before torch.cpu.get_capabilities",
    "torch.cpu._is_amx_tile_supported": "before torch.cpu.get_capabilities",
    "._indices(": "of a sparse gradient that is not marked as coalesced",
    "._values(": "of a sparse gradient that is not marked as coalesced",
    "distributed_c10d._abort_process_group": "ends collectives that wait for a rank which is gone",
    "distributed_c10d._get_default_store": "the store of a process group that somebody else has made",
}


def test_these_and_no_others_are_used():
    sources = Path(recvae.__file__).parent.rglob("*.py")
    assert {name for path in sources for name in PRIVATE.findall(path.read_text())} == set(REASONS)


def test_the_installed_torch_has_them():
    if torch.backends.mkldnn.is_available():
        assert callable(torch.ops.mkldnn._linear_pointwise)
    assert callable(torch.cpu._is_avx512_bf16_supported)
    assert callable(torch.cpu._is_amx_tile_supported)
    for name in ("_abort_process_group", "_get_default_store"):
        assert callable(getattr(torch.distributed.distributed_c10d, name))
    rows = torch.sparse_coo_tensor([[1, 1]], torch.ones(2, 3), (4, 3), check_invariants=True)
    assert rows._indices().tolist() == [[1, 1]]
    assert rows._values().shape == (2, 3)


def test_what_the_hardware_computes_in_is_said_by_either_name():
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        assert bool(found.get("avx512_bf16")) == torch.cpu._is_avx512_bf16_supported()
        assert bool(found.get("amx_tile")) == torch.cpu._is_amx_tile_supported()
