"""The layers of networks on sparse rows, and the kernels below them.

In this order: the input layer, whose weight has a row for each item; dense layers; dense products; the workspace, whose
buffers all training steps share.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import Any

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.errors import UnknownNameError
from recvae.nn.rng import CounterRNG
from recvae.utils.sparse_products import bag_sums, group_offsets, grouped_sums, row_sparse, weighted_sums
from recvae.utils.workers import USERS, cut, map_pieces

PRECISIONS = ("auto", "float32", "bfloat16")
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None

# the input layer ------------------------------------------------------------------------------------------------------


class SparseEmbeddingBag(nn.Module):
    """x W + b for sparse rows x: the weighted sum of the rows of W that belong to a user's items.

    With `sparse` set, the gradient of W is a sparse tensor over the rows of the batch's items, whose cost does not grow
    with the number of items; it needs an optimizer for such gradients, as `RowwiseAdam`.

    Parameters
    ----------
    n_items, out_dim
        Rows and columns of W. Weights are NaN until `initialize`.
    """

    def __init__(self, n_items: int, out_dim: int):
        super().__init__()
        self.sparse = False
        self.weight = nn.Parameter(torch.full((n_items, out_dim), torch.nan))  # (I, H), for `initialize`
        self.bias = nn.Parameter(torch.full((out_dim,), torch.nan))  # (H,)

    def forward(self, batch: Batch) -> Tensor:
        """x W + b. -> (B, H)"""
        return self.weighted(batch, batch.values)

    def weighted(self, batch: Batch, values: Tensor) -> Tensor:
        """x W + b with other values (E,) of the same events. -> (B, H)"""
        return self.sums(batch, values) + self.bias

    def sums(self, batch: Batch, values: Tensor) -> Tensor:
        """x W. (E,) -> (B, H)"""
        x = values.to(self.weight.dtype)
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return weighted_sums(self.weight, batch.items, batch.offsets, x)
        sums: Tensor = _SparseEmbeddingBag.apply(self.weight, batch, x, self.sparse)  # type: ignore[no-untyped-call]
        return sums


class InputLayer(SparseEmbeddingBag):
    """The first layer of every encoder: row of unit norm -> dropout in training -> weighted sum of rows of W.

    Parameters
    ----------
    n_items, out_dim
        Rows and columns of W.
    dropout
        Share of a user's events that is dropped in training. None is none, until the trainer of a model sets it.
    """

    def __init__(self, n_items: int, out_dim: int, dropout: float | None):
        super().__init__(n_items, out_dim)
        self.dropout = dropout

    def forward(self, batch: Batch, rng: CounterRNG | None = None) -> Tensor:
        """Normalise, drop events if training with `rng`, and apply x W + b. -> (B, H)"""
        draw = rng.next_draw() if self.training and self.dropout and rng is not None else None

        def values_of(users: slice) -> Tensor:
            part = batch.part(users)
            values = normalized(part)
            return values if draw is None else dropout(values, self.dropout or 0.0, part, draw.of(users))

        values = map_pieces(values_of, cut(len(batch), USERS, batch.offsets.device))
        return self.weighted(batch, values[0] if len(values) == 1 else torch.cat(values))


def normalized(batch: Batch) -> Tensor:
    """Each user's values divided by their Euclidean norm. -> (E,)"""
    norms = batch.sum(batch.values.square()).sqrt()
    return batch.values / norms[batch.rows]


def dropout(values: Tensor, rate: float, batch: Batch, rng: CounterRNG) -> Tensor:
    """Drop each event's value (E,) with probability `rate`, scale the others by 1 / (1 - rate).

    It is the same as dropout on the dense row, since zeros stay zero.
    """
    return values * rng.keep_mask(batch, rate) / (1 - rate)


class _SparseEmbeddingBag(torch.autograd.Function):
    """x W, without a gradient for x."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: Batch, values: Tensor, sparse_gradient: bool) -> Tensor:
        ctx.shape, ctx.sparse = weight.shape, sparse_gradient
        if values.device.type != "cpu":  # with the dropped events: nonzero would synchronise
            ctx.save_for_backward(batch.items, batch.offsets, values)
            return weighted_sums(weight, batch.items, batch.offsets, values)

        rows = batch.rows  # once, not by each core

        def piece(users: slice) -> tuple[Tensor, ...]:
            """Sums, and the events that are not dropped: items, values and their number by user."""
            events = batch.events(users)
            kept = values[events].nonzero()[:, 0] + events.start
            items, x = batch.items[kept], values[kept]
            offsets = torch.searchsorted(rows[kept], torch.arange(users.start, users.stop + 1))
            return bag_sums(weight, items, offsets, x), items, x, offsets.diff()

        parts = map_pieces(piece, cut(len(batch), USERS))
        sums, items, x, lengths = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        ctx.save_for_backward(items, F.pad(lengths.cumsum(0), (1, 0)), x)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """x^T grad, from the events in the order of their items."""
        items, offsets, values = ctx.saved_tensors
        n_rows = ctx.shape[0]
        if ctx.sparse:  # without an array over all items
            distinct_items, items = items.unique(return_inverse=True)
            n_rows = len(distinct_items)
        starts, users, values = by_items(items, offsets, values, n_rows)
        out = workspace("gradient of the first layer", (n_rows, grad.shape[1]), grad.dtype, grad.device, for_step=True)
        sums = grouped_sums(grad, starts, users, values, out)
        return row_sparse(distinct_items, sums, ctx.shape) if ctx.sparse else sums, None, None, None


def by_items(items: Tensor, offsets: Tensor, values: Tensor, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Events in the order of their items, those of one item in the order of their users: the transposed matrix.

    Parameters
    ----------
    items, values
        (E,), user b has those from offsets[b] (B + 1,) to offsets[b + 1].

    Returns
    -------
    (Tensor, Tensor, Tensor)
        Start of each item's events (I + 1,), their users (E,), and their values (E,).
    """
    if values.device.type == "cpu":  # a counting sort, several times as fast as torch's
        arrays = (values.numpy(), items.numpy(), offsets.numpy())
        by_item = sparse.csr_matrix(arrays, shape=(len(offsets) - 1, n_items)).tocsc()
        starts, users, of_users = (torch.from_numpy(x) for x in (by_item.indptr, by_item.indices, by_item.data))
        return starts, users, of_users
    return _by_items_sorted(items, offsets, values, n_items)


def _by_items_sorted(items: Tensor, offsets: Tensor, values: Tensor, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """`by_items` on any device."""
    users = torch.repeat_interleave(offsets.diff(), output_size=len(items))
    items, order = items.sort(stable=True)
    return group_offsets(items, n_items), users[order], values[order]


# dense layers ---------------------------------------------------------------------------------------------------------


class Dense(nn.Linear):
    """A linear layer whose product may be in lower precision under autocast; its output has the dtype of its input.

    Weights are NaN until `initialize`.
    """

    def reset_parameters(self) -> None:
        """Fill with NaN, without torch's global generator."""
        for parameter in self.parameters():
            nn.init.constant_(parameter, torch.nan)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias).to(x.dtype)


def dense_layers(dims: Sequence[int]) -> nn.ModuleList:
    """A linear layer from each size in `dims` to the next."""
    return nn.ModuleList(Dense(a, b) for a, b in itertools.pairwise(dims))


def gated_layers(dims: Sequence[int]) -> nn.ModuleList:
    """Layers of twice the width, to be followed by `glu`, which halves it: h -> (W h + b) * sigmoid(V h + c).

    References
    ----------
    Dauphin et al. 2017.
    """
    return nn.ModuleList(Dense(a, 2 * b) for a, b in itertools.pairwise(dims))


# dense products -------------------------------------------------------------------------------------------------------


def linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h W^T + b.

    On a CPU without gradients, oneDNN computes it, as in torch.compile: on some CPUs in half the time of the BLAS
    behind F.linear, except for a single row and a weight stored `by_columns`. Some of the items of such a weight take
    oneDNN a thousand times as long.
    """
    if ONEDNN is None or hidden.device.type != "cpu" or hidden.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(hidden, weight, bias)
    if weight.T.is_contiguous() and len(hidden) == 1:
        return torch.addmm(bias, hidden, weight.T)
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        return F.linear(hidden, weight, bias)
    return ONEDNN(hidden, weight, bias, "none", [], "")


def by_columns(weight: Tensor) -> Tensor:
    """The weight (I, H) in column-major order: products with few rows take as little as half the time."""
    return weight.T.contiguous().T


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products are computed in bfloat16; for "auto", whether the hardware supports it natively."""
    if precision not in PRECISIONS:
        raise UnknownNameError.among("precision", precision, PRECISIONS)
    return precision == "bfloat16" or (precision == "auto" and _computes_bfloat16(device))


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively, instead of converting it to float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.6 has no public function for it
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))


# the workspace: on a CPU, a fresh page of memory costs about as much as the arithmetic done on it ---------------------


class Workspace:
    """Buffers of one thread, by name and, for `for_step` buffers, by the count of earlier requests in the step."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self.buffers: dict[tuple[str, int], Tensor] = {}
        self.turns: Counter[str] = Counter()

    def begin_step(self) -> None:
        """Start a step: buffers of the previous step may be overwritten from here on."""
        self.turns.clear()

    def buffer(self, name: str, turn: int, size: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised buffer, allocated or reused. -> (size,)"""
        buffer = self.buffers.get((name, turn))
        if buffer is None or buffer.dtype != dtype or len(buffer) < size:
            buffer = self.buffers[name, turn] = torch.empty(size, dtype=dtype)
        return buffer[:size]


_workspace: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


@contextmanager
def reuse_workspace() -> Iterator[Workspace]:
    """In this context, each step reuses the buffers of the previous one, those of gradients included.

    For a loop in one thread that no longer needs the gradients of a step when it calls `begin_step`. A nested context
    uses the buffers of the outer one.
    """
    current = _of_this_thread() or Workspace()
    token = _workspace.set(current)
    try:
        yield current
    finally:
        _workspace.reset(token)


def workspace(
    name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device, *, for_step: bool = False
) -> Tensor:
    """An uninitialised tensor, valid until the next request for the same name; with `for_step`, until the next step.

    On devices other than the CPU it is a new tensor: their allocators cache memory.
    """
    current = _of_this_thread()
    if current is None or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    turn = current.turns[name]
    current.turns[name] += for_step
    return current.buffer(name, turn, torch.Size(shape).numel(), dtype).view(shape)


def _of_this_thread() -> Workspace | None:
    """The workspace of the current context, None if another thread made it: contexts may be copied."""
    current = _workspace.get()
    return current if current is not None and current.thread == get_ident() else None
