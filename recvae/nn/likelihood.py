"""The negative log-likelihood of users' rows: one function, `nll`, with three families and three implementations.

It takes the decoder's last hidden state and the output layer, never logits, so that no (B, I) matrix has to exist. The
order of the file: `nll`, the reference implementation, the fused chunked implementation, and the formulas of each
family for a chunk of logits. The sampled softmax is in recvae.nn.sampled_softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.distributed.communicator import SINGLE_PROCESS
from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.nn.bfloat16 import Bfloat16Products
from recvae.nn.layers import in_bfloat16, linear, workspace
from recvae.nn.sampled_softmax import check_sampled, sampled_with_gradients
from recvae.nn.slices import ItemSlice
from recvae.utils.workers import ITEMS, cut, map_pieces

FAMILIES = ("multinomial", "logistic", "gaussian")
IMPLS = ("auto", "reference", "chunked", "sampled")
CHUNK_BYTES = 40 << 20  # about 1,000 users of 20,000 items in bfloat16
LARGEST = 60.0  # bound of logits that exp takes without a shift: e^60 times any number of items fits float32
UNOBSERVED = 0.1  # confidence that an item without an event is a 0

# gradients of hidden states (B, H), weight (I, H) and bias (I,); None where no gradient is needed
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Likelihood(Protocol):
    """-log p(x | z) of each user of a batch: `nll`, with the family set by `partial`, or your own function."""

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor:
        """Hidden states (B, H), weight (I, H), bias (I,), B rows -> (B,)."""
        ...


@dataclass(frozen=True)
class Options:
    """How a likelihood is computed, apart from its family and implementation.

    Parameters
    ----------
    precision
        Precision of the products with all items in "chunked": "float32" (that of the weights), or "bfloat16", also for
        the chunk of logits, with sums over items or users in float32; "auto" is "bfloat16" on hardware that supports it
        natively.
    chunk_bytes
        Largest size of a chunk of logits, which has at least one row.
    unobserved
        Confidence of the Gaussian in items without an event, above 0; it is 1 in items with an event.
    items
        For tensor parallel training: the slice of the catalogue of weight and bias on this rank. Hidden states and the
        batch cover all items and are the same on each rank, as are the value and the gradient of hidden states.
        Only for "chunked", or "auto" without negatives.

    Raises
    ------
    InvalidParameterError
        For an `unobserved` of 0 or below.
    """

    precision: str = "float32"
    chunk_bytes: int = CHUNK_BYTES
    unobserved: float = UNOBSERVED
    items: ItemSlice | None = None

    def __post_init__(self) -> None:
        if not self.unobserved > 0:
            raise InvalidParameterError(
                f"Expected a confidence in items without an event above 0, got {self.unobserved!r}."
            )


def nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    family: str = "multinomial",
    impl: str = "auto",
    options: Options = Options(),
) -> Tensor:
    r"""-log p(x | z) of each user, without the term that depends on x alone, from logits l = h W^T + b.

        multinomial   log p(x | z) = sum_i x_i log softmax(l)_i
        logistic      log p(x | z) = sum_{i: x_i > 0} x_i log sigmoid(l_i) + sum_{i: x_i = 0} log(1 - sigmoid(l_i))
        gaussian      log p(x | z) = -sum_i c_i / 2 (x_i - l_i)^2,  c_i = 1 where x_i > 0, else `options.unobserved`

    In the logistic family each item is an independent Bernoulli variable; an event with value x counts x times. In the
    gaussian one each value is normal around its logit, with confidence c_i. Both need rows without duplicate items.

    Parameters
    ----------
    hidden
        (B, H), the decoder's last hidden state.
    weight, bias
        (I, H) and (I,), the output layer.
    batch
        The B rows x.
    family
        "multinomial", "logistic" or "gaussian".
    impl
        "reference" computes all logits and dense rows, as the formulas above are written. "chunked" has the same value
        and gradient, and holds one chunk of logits at a time. "sampled" estimates the softmax's sum over
        items from `batch.negatives`, for the multinomial only: see `recvae.nn.sampled_softmax`. "auto" is
        "sampled" for a batch with negatives, else "chunked".
    options
        Precision, chunk size, confidence, slice of items.

    Returns
    -------
    Tensor
        (B,). "chunked" and "sampled" are fused: gradients are computed in the forward pass, for a loss that is the mean
        over users. On a CPU, for another loss, they are computed again in the backward pass; on a GPU, the gradient is
        right for losses in which all users have one weight, and NaN for others.

    Raises
    ------
    UnknownNameError
        For an unknown family, implementation or precision.
    InvalidParameterError
        If the implementation does not support the family, needs negatives that the batch lacks, or does not support
        slices of items.
    InvalidTypeError
        For weights that are neither float32 nor float64.

    References
    ----------
    Liang, Krishnan, Hoffman & Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018, equations 2-4.
    """
    if family not in FAMILIES:
        raise UnknownNameError.among("family of likelihoods", family, FAMILIES)
    if impl not in IMPLS:
        raise UnknownNameError.among("impl of a likelihood", impl, IMPLS)
    sampled = impl == "sampled" or (impl == "auto" and batch.negatives is not None)
    if options.items is not None:
        if sampled or impl == "reference":
            raise InvalidParameterError(
                f'Expected impl="chunked" where ranks have slices of the items, got impl={impl!r}'
                f"{' and a batch with negatives' if impl == 'auto' else ''}; take that, or do not shard the items."
            )
        hidden, batch = options.items.broadcast(hidden), options.items.local(batch).batch
    if impl == "reference":
        return _reference(hidden, weight, bias, batch, family, options)
    if sampled:
        check_sampled(family, weight, bias, batch)
        compute = partial(sampled_with_gradients, batch)
    else:
        compute = partial(_chunked, batch, family, options)
    hidden = hidden.to(weight.dtype)  # under autocast, the layers before may have left it in bfloat16
    if not len(hidden):
        return hidden.sum(1)  # (0,), with a gradient
    if torch.is_grad_enabled() and any(part.requires_grad for part in (hidden, weight, bias)):
        fused: Tensor = _Fused.apply(compute, hidden, weight, bias)  # type: ignore[no-untyped-call]
        return fused
    return compute(hidden, weight, bias, None)[0]


def with_options(likelihood: Likelihood, **changes: Any) -> Likelihood:
    """The same likelihood with some `Options` changed; a custom function, which has none, is returned as it is."""
    if likelihood is nll:
        likelihood = partial(nll)
    if not (isinstance(likelihood, partial) and likelihood.func is nll):
        return likelihood
    options = replace(likelihood.keywords.get("options", Options()), **changes)
    return partial(likelihood, options=options)


# the reference --------------------------------------------------------------------------------------------------------


def _reference(hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, family: str, options: Options) -> Tensor:
    """The formulas of `nll`, written out: the other implementations are tested against it."""
    logits = F.linear(hidden, weight, bias)  # (B, I)
    x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values.to(logits.dtype), True)  # (B, I)
    if family == "multinomial":
        return -(x * F.log_softmax(logits, dim=1)).sum(1)
    if family == "logistic":
        return -torch.where(x > 0, x * F.logsigmoid(logits), F.logsigmoid(-logits)).sum(1)
    errors = (x - logits).square()
    return 0.5 * torch.where(x > 0, errors, options.unobserved * errors).sum(1)


# the fused implementation ---------------------------------------------------------------------------------------------


class Compute(Protocol):
    """Computes the value of a likelihood for B rows and, if `users` is given, its gradients."""

    def __call__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, users: Tensor | None
    ) -> tuple[Tensor, Gradients | None]:
        """nll (B,), and the gradients of the loss sum_u users[u] nll_u. -> (B,), gradients"""
        ...


class _Fused(torch.autograd.Function):
    """Computes the gradients in the forward pass, while the logits of a chunk are in the cache.

    That needs the weight of each user in the loss, which is assumed to be the mean over users. Backward computes the
    gradients again if it is called a second time or, on a CPU, if the loss turns out to be another one.
    """

    @staticmethod
    def forward(ctx: Any, compute: Compute, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean = hidden.new_full((len(hidden),), 1 / len(hidden))  # (B,)
        value, ctx.gradients = compute(hidden, weight, bias, mean)
        ctx.save_for_backward(hidden, weight, bias, mean)
        ctx.compute = compute
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, mean = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None  # handed out, not kept: autograd may change them in place
        if gradients is not None and grad.device.type != "cpu":
            # comparing weights on the host would synchronise the device: if they differ, the gradients become NaN
            scale = torch.where((grad == grad[:1]).all(), grad[0] / mean[0], torch.nan)
            for part in gradients:
                if part is not None:
                    (part.values() if part.is_sparse else part).mul_(scale)
        elif gradients is None or not torch.equal(grad, mean):
            _, gradients = ctx.compute(hidden, weight, bias, grad)
        return None, *gradients


class Float32Products:
    """The three products of users with a block of items, where training spends most of its time.

    In the precision of the weights; `recvae.nn.bfloat16.Bfloat16Products` has the same methods.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """(R, H) -> (R, I'), a new tensor: oneDNN allocates it."""
        return linear(hidden, self.weight, self.bias)

    def sums(self, p: Tensor) -> Tensor:
        """Sum of each row. (R, I') -> (R,)"""
        return p.sum(1)

    def sums_of_squares(self, p: Tensor) -> Tensor:
        """Sum of the squares of each row. (R, I') -> (R,)"""
        return torch.linalg.vector_norm(p, dim=1).square()

    def backward(self, p: Tensor, hidden: Tensor, scale: Tensor, into: Gradients, first: bool) -> None:
        """Backpropagate p * scale[:, None], the gradient of the logits.

        The gradient (R, H) of hidden states is overwritten; those of weight and bias if `first`, else they are added.
        """
        grad_hidden, grad_weight, grad_bias = into
        beta = 0 if first else 1
        if grad_hidden is not None:
            torch.mm(p, self.weight, out=grad_hidden).mul_(scale[:, None])
        if grad_weight is not None and grad_bias is not None:
            grad_weight.addmm_(p.T, hidden * scale[:, None], beta=beta)
            grad_bias.addmv_(p.T, scale, beta=beta)


class Block(NamedTuple):
    """Logits of R users for a block of items, to be overwritten, and the users' events on these items."""

    logits: Tensor  # (R, I'), in the precision of the products
    rows: Tensor  # (E',) user of each event, from 0 to R - 1
    cells: Tensor  # (E',) index of each event in logits.view(-1)
    values: Tensor  # (E',)
    products: Float32Products | Bfloat16Products
    options: Options

    def observed(self) -> Tensor:
        """Logits of the events. -> (E',)"""
        return self.logits.view(-1)[self.cells].to(self.values.dtype)

    def sum(self, events: Tensor) -> Tensor:
        """Sum of one number for each event (E',) by user. -> (R,)"""
        return events.new_zeros(len(self.logits)).index_add_(0, self.rows, events)


class Joined(NamedTuple):
    """What the blocks give together for R users. The gradient of logits is `factor` times what `Block.logits` become"""

    value: Tensor  # (R,) nll
    factor: Tensor | float  # (R,)
    scales: Tensor | None = None  # (blocks, R) factors of the blocks' logits, where they were shifted differently
    less: Tensor | None = None  # (R,) subtracted in the cells of events, times their values


@torch.no_grad()
def _chunked(
    batch: Batch, family: str, options: Options, hidden: Tensor, weight: Tensor, bias: Tensor, users: Tensor | None
) -> tuple[Tensor, Gradients | None]:
    """The `Compute` of "chunked": holds the logits of one chunk of users at a time, in blocks of items.

    Blocks are computed in parallel, in two rounds: the gradient of the softmax needs the sums of all blocks.
    """
    value = hidden.new_empty(len(hidden))
    gradients = None if users is None else _room(hidden, weight, bias)
    items = cut(len(weight), ITEMS, weight.device)
    products = map_pieces(_products(options.precision, weight, bias), items)
    begin, join = FAMILY_STEPS[family]
    for rows in _chunks(len(hidden), len(weight), options, products[0].weight.dtype.itemsize):
        blocks_of = _Logits(batch, rows, hidden, items, products, options)
        blocks = map_pieces(blocks_of, range(len(items)))
        joined = join(torch.stack(map_pieces(begin, blocks)), blocks_of.n, options)
        value[rows] = joined.value
        if users is not None and gradients is not None:
            _backward(blocks, joined, hidden[rows], users[rows] * joined.factor, rows, items, gradients)
    return value, gradients


def _chunks(n_users: int, n_items: int, options: Options, itemsize: int) -> list[slice]:
    """Chunks of users of about equal size, whose logits take at most `options.chunk_bytes`."""
    # with slices of items, all ranks use the size of the largest slice, so that their chunks have the same users
    row_bytes = itemsize * max(1, n_items if options.items is None else options.items.max_size)
    n_chunks = -(-n_users // max(1, options.chunk_bytes // row_bytes))
    step = -(-n_users // max(1, n_chunks))
    return [slice(start, min(start + step, n_users)) for start in range(0, n_users, step)]


class _Logits:
    """Computes the blocks of logits of a chunk of users: block k has the items of the k-th slice."""

    def __init__(
        self,
        batch: Batch,
        rows: slice,
        hidden: Tensor,
        items: Sequence[slice],
        products: Sequence[Float32Products | Bfloat16Products],
        options: Options,
    ):
        events = batch.events(rows)
        self.rows, self.events = batch.rows[events] - rows.start, batch.items[events]  # (E,) user and item of events
        self.values, self.hidden = batch.values[events].to(hidden.dtype), hidden[rows]  # (E,), (R, H)
        self.items, self.products, self.options = items, products, options
        self.n = self.values.new_zeros(len(self.hidden)).index_add_(0, self.rows, self.values)  # (R,) sums of the rows
        dtype, shape = products[0].weight.dtype, (len(self.hidden) * items[-1].stop,)
        low = dtype != hidden.dtype  # float32 products allocate their result
        self.buffer = workspace("logits of a chunk", shape, dtype, hidden.device) if low else None

    def __call__(self, k: int) -> Block:
        items, products, n_users = self.items[k], self.products[k], len(self.hidden)
        width = items.stop - items.start
        rows, events, values = self.rows, self.events, self.values
        if len(self.items) > 1:
            chosen = ((events >= items.start) & (events < items.stop)).nonzero()[:, 0]
            rows, events, values = rows[chosen], events[chosen] - items.start, values[chosen]
        out = self.buffer
        if out is not None:
            out = out[n_users * items.start : n_users * items.stop].view(n_users, width)
        with torch.autocast(self.hidden.device.type, enabled=False):  # the precision is chosen by `options`
            logits = products.logits(self.hidden, out)  # (R, I')
        return Block(logits, rows, rows * width + events, values, products, self.options)


def _backward(
    blocks: Sequence[Block],
    joined: Joined,
    hidden: Tensor,
    scale: Tensor,
    rows: slice,
    items: Sequence[slice],
    gradients: Gradients,
) -> None:
    """Backpropagate the logits' gradients (R, I), `scale` (R,) times what the logits have become."""
    grad_hidden, grad_weight, grad_bias = gradients
    partial_sums = None  # of the gradient of hidden states, by blocks of items
    if grad_hidden is not None:
        shape = len(blocks), *hidden.shape
        partial_sums = workspace("gradients of hidden states", shape, hidden.dtype, hidden.device)

    def backward(k: int) -> None:
        p, block = blocks[k].logits, blocks[k]
        if joined.scales is not None:
            p.mul_(joined.scales[k][:, None])
        if joined.less is not None:
            less = block.values * joined.less[block.rows]
            p.view(-1).index_add_(0, block.cells, less.to(p.dtype), alpha=-1)
        into = (
            None if partial_sums is None else partial_sums[k],
            None if grad_weight is None else grad_weight[items[k]],
            None if grad_bias is None else grad_bias[items[k]],
        )
        block.products.backward(p, hidden, scale, into, first=rows.start == 0)

    map_pieces(backward, range(len(blocks)))
    if grad_hidden is not None and partial_sums is not None:
        torch.sum(partial_sums, 0, out=grad_hidden[rows])


def _room(hidden: Tensor, weight: Tensor, bias: Tensor) -> Gradients:
    """Uninitialised tensors for the gradients that are needed."""
    grad_weight = grad_bias = None
    if weight.requires_grad or bias.requires_grad:
        name = "gradient of the output layer"
        grad_weight = workspace(name, weight.shape, weight.dtype, weight.device, for_step=True)
        grad_bias = torch.empty_like(bias)
    return torch.empty_like(hidden) if hidden.requires_grad else None, grad_weight, grad_bias


def _products(precision: str, weight: Tensor, bias: Tensor) -> Callable[[slice], Float32Products | Bfloat16Products]:
    """Blocks of items -> the products with them, in the given precision; "auto" keeps float64."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise InvalidTypeError(
            f"Expected weights in float32 or float64, got {weight.dtype}; precision says what products are computed in."
        )
    keep = precision == "auto" and weight.dtype == torch.float64
    if keep or not in_bfloat16(precision, weight.device):
        return lambda items: Float32Products(weight[items], bias[items])
    table = Bfloat16Products.table(weight)
    return lambda items: Bfloat16Products(weight[items], bias[items], table[items])


# by family: a block of logits, to be overwritten -> statistics (S, R); those of all blocks -> `Joined` ----------------


def _multinomial(block: Block) -> Tensor:
    """Statistics of e^l, which the logits become: the shift of l, the sums of e^(l - shift), sum_i x_i l_i. (3, R)"""
    p = block.logits
    observed = block.sum(block.values * block.observed())
    largest = p.amax(1, keepdim=True)
    shift = largest - largest.clamp(-LARGEST, LARGEST)  # mostly 0: no logit is rounded a second time
    if p.device.type != "cpu" or shift.any():
        p.sub_(shift)
    p.exp_()
    return torch.stack([shift[:, 0].to(observed.dtype), block.products.sums(p).to(observed.dtype), observed])


def _softmax(statistics: Tensor, n: Tensor, options: Options) -> Joined:
    """n logsumexp(l) - sum_i x_i l_i, where n = sum_i x_i. Its gradient is n softmax(l) - x.

    The softmax is e^(l - shift) up to the factor 1 / sums, if the shift is the largest of all blocks and ranks.
    """
    shifts, sums, observed = statistics.unbind(1)  # (blocks, R) each
    communicator = SINGLE_PROCESS if options.items is None else options.items.communicator
    shift = communicator.all_reduce_max(shifts.amax(0)) if communicator.size > 1 else shifts.amax(0)  # (R,)
    scales = (shifts - shift).exp()
    totals = torch.stack([(sums * scales).sum(0), n, observed.sum(0)])
    total, n, observed = communicator.all_reduce(totals) if communicator.size > 1 else totals
    less = total / n.clamp(min=torch.finfo(n.dtype).tiny)
    one_shift = len(shifts) == communicator.size == 1 or (shifts.device.type == "cpu" and bool((scales == 1).all()))
    return Joined(n * (total.log() + shift) - observed, n / total, None if one_shift else scales, less)


def _logistic(block: Block) -> Tensor:
    """sum_i log(1 + e^l_i) where x_i = 0, x_i log(1 + e^-l_i) elsewhere. Its gradient: sigmoid(l), -x sigmoid(-l).

    As log(1 + e^-l) = log(1 + e^l) - l, it is the sum of log(1 + e^l) over all items plus a sparse term of the events.
    -> (1, R)
    """
    p, x, observed = block.logits, block.values, block.observed()
    torch.logaddexp(p, p.new_zeros(()), out=p)  # softplus(l) = log(1 + e^l)
    softplus = torch.logaddexp(observed, observed.new_zeros(()))
    value = block.products.sums(p) + block.sum((x - 1) * softplus - x * observed)
    p.neg_().expm1_()  # -sigmoid(l), from 1 - sigmoid(l) = e^-log(1 + e^l)
    p.view(-1)[block.cells] = (x * torch.sigmoid(-observed)).to(p.dtype)
    return value[None]


def _gaussian(block: Block) -> Tensor:
    """sum_i c_i / 2 (x_i - l_i)^2, where c_i is 1 in items with an event. Its gradient is c_i (l_i - x_i). -> (1, R)"""
    logits, x, observed, unobserved = block.logits, block.values, block.observed(), block.options.unobserved
    difference = (x - observed).square() - unobserved * observed.square()
    value = 0.5 * (unobserved * block.products.sums_of_squares(logits) + block.sum(difference))
    logits.view(-1)[block.cells] = ((observed - x) / unobserved).to(logits.dtype)
    return value[None]


def _sum(statistics: Tensor, n: Tensor, options: Options, factor: float) -> Joined:
    """The value of items that are independent given z: a sum over blocks, and ranks."""
    value = statistics.sum(0)[0]
    return Joined(value if options.items is None else options.items.communicator.all_reduce(value), factor)


def _logistic_sum(statistics: Tensor, n: Tensor, options: Options) -> Joined:
    return _sum(statistics, n, options, -1.0)


def _gaussian_sum(statistics: Tensor, n: Tensor, options: Options) -> Joined:
    return _sum(statistics, n, options, options.unobserved)


Begin = Callable[[Block], Tensor]
Join = Callable[[Tensor, Tensor, Options], Joined]
FAMILY_STEPS: dict[str, tuple[Begin, Join]] = {
    "multinomial": (_multinomial, _softmax),
    "logistic": (_logistic, _logistic_sum),
    "gaussian": (_gaussian, _gaussian_sum),
}
