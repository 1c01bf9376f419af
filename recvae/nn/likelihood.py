"""Likelihoods of a user's row. They take the last hidden state and the output layer, never logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recvae.data.batches import Batch
from recvae.distributed.communicator import ALONE, World
from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.nn.head import Block, Distribution, How, exact_nll
from recvae.nn.sampled import sampled_nll
from recvae.nn.slices import ItemSlice

IMPLS = ("auto", "dense", "exact", "sampled")
BLOCK_BYTES = 48 << 20  # about 1,250 users of 20,000 items in bfloat16
LARGEST = 60.0  # of a logit that is taken to the exponential as it is: e^60 times any number of items is a float32
UNOBSERVED = 0.1  # confidence that an item without an event is a 0


def multinomial_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    impl: str = "auto",
    *,
    precision: str = "float32",
    block_bytes: int = BLOCK_BYTES,
    items: ItemSlice | None = None,
) -> Tensor:
    """-log p(x | z) of each user under a multinomial over the items, without the constant of x alone.

        log p(x | z) = sum_i x_i log softmax(h W^T + b)_i + const        (Liang et al. 2018, equation 2)

    Parameters
    ----------
    hidden : Tensor
        (B, H).
    weight : Tensor
        (I, H).
    bias : Tensor
        (I,).
    batch : Batch
        The B rows x.
    impl : str
        "dense" is the textbook's, over all logits and a dense row: the reference. "exact" has the same value and
        gradient from blocks of rows, and never more than one block of logits. "sampled" estimates the sum over items
        from `batch.candidates`, in the precision of the weights: see recvae.nn.sampled. "auto" is "sampled" for a batch
        with candidates, else "exact". On a GPU the gradient of both is for losses in which all users have one weight,
        such as the mean; for others it is NaN.
    precision : str
        Of the products of "exact" with all items: "float32" (that of the weights), or "bfloat16", in which the block of
        logits is kept too, while sums over items or users are in float32; "auto" takes bfloat16 where the hardware
        computes in it.
    block_bytes : int
        How large a block of logits may be; it has at least one row.
    items : ItemSlice or None
        Which of a larger catalogue's items weight and bias are of, where each rank has a slice of them; hidden states
        and the batch are of all, the same on each rank, and so are value and gradient of hidden states. For "exact", or
        "auto" without candidates.

    Returns
    -------
    Tensor
        (B,).
    """
    return _nll(
        Multinomial(_world(items)), hidden, weight, bias, batch, impl, _how(precision, block_bytes, items), items
    )


def logistic_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    impl: str = "auto",
    *,
    precision: str = "float32",
    block_bytes: int = BLOCK_BYTES,
    items: ItemSlice | None = None,
) -> Tensor:
    """-log p(x | z) of each user where each item is a coin of its own, had or not.

        log p(x | z) = sum_{i: x_i > 0} x_i log sigmoid(l_i) + sum_{i: x_i = 0} log(1 - sigmoid(l_i)),  l = h W^T + b

    On binary rows it is that of Liang et al. 2018, equation 4; an event of another value counts so many times. The rest
    is as in `multinomial_nll`; a row has an item at most once.

    Returns
    -------
    Tensor
        (B,).
    """
    return _nll(Logistic(_world(items)), hidden, weight, bias, batch, impl, _how(precision, block_bytes, items), items)


def gaussian_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    impl: str = "auto",
    *,
    unobserved: float = UNOBSERVED,
    precision: str = "float32",
    block_bytes: int = BLOCK_BYTES,
    items: ItemSlice | None = None,
) -> Tensor:
    """-log p(x | z) of each user where each item's value is normal around its logit, without constants.

        log p(x | z) = -sum_i c_i / 2 (x_i - l_i)^2 + const,  l = h W^T + b        (Liang et al. 2018, equation 3)

    with confidence c_i = 1 in items that have an event and c_i = `unobserved`, above 0, in the others. The rest is as
    in `multinomial_nll`; a row has an item at most once.

    Returns
    -------
    Tensor
        (B,).
    """
    if not unobserved > 0:
        raise InvalidParameterError(f"Expected a confidence in items without an event above 0, got {unobserved!r}.")
    return _nll(
        Normal(unobserved, _world(items)), hidden, weight, bias, batch, impl, _how(precision, block_bytes, items), items
    )


# name -> (hidden, weight, bias, batch, ...) -> (B,)
LIKELIHOODS: dict[str, Callable[..., Tensor]] = {
    "multinomial": multinomial_nll,
    "logistic": logistic_nll,
    "gaussian": gaussian_nll,
}


def _nll(
    distribution: Distribution,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    impl: str,
    how: How,
    items: ItemSlice | None,
) -> Tensor:
    if impl not in IMPLS:
        raise UnknownNameError.among("impl of a likelihood", impl, IMPLS)
    sampled = impl == "sampled" or (impl == "auto" and batch.candidates is not None)
    if items is not None:
        if sampled or impl == "dense":
            raise InvalidParameterError(
                f'Expected impl="exact" where ranks have slices of the items, got impl={impl!r}'
                f"{' and a batch with candidates' if impl == 'auto' else ''}; take that, or do not shard the items."
            )
        hidden, batch = items.to_all(hidden), items.own(batch).batch
    if sampled:
        if not isinstance(distribution, Multinomial):
            raise InvalidParameterError(
                f'Expected the multinomial likelihood for impl="sampled", got {type(distribution).__name__.lower()}; '
                'take impl="exact".'
            )
        return sampled_nll(hidden, weight, bias, batch)
    if impl != "dense":
        return exact_nll(distribution, hidden, weight, bias, batch, how)
    logits = F.linear(hidden, weight, bias)  # (B, I)
    x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values.to(logits.dtype), True)
    return distribution.dense(logits, x)


def _world(items: ItemSlice | None) -> World:
    return ALONE if items is None else items.world


def _how(precision: str, block_bytes: int, items: ItemSlice | None) -> How:
    return How(precision, block_bytes, 0 if items is None else items.widest)


@dataclass(frozen=True)
class Multinomial:
    """n logsumexp(l) - sum_i x_i l_i, where n = sum_i x_i. Its gradient is n softmax(l) - x."""

    world: World = ALONE  # the ranks over whose slices of items the sums are

    def dense(self, logits: Tensor, x: Tensor) -> Tensor:
        return -(x * F.log_softmax(logits, dim=1)).sum(1)

    def block(self, block: Block) -> tuple[Tensor, Tensor]:
        p, x, n = block.logits, block.values, block.sum(block.values)
        observed = block.sum(x * block.observed())  # sum_i x_i l_i
        top = self.world.max(p.amax(1, keepdim=True))
        excess = top - top.clamp(-LARGEST, LARGEST)  # mostly 0: no logit is rounded a second time
        if p.device.type != "cpu" or excess.any():
            p.sub_(excess)
        p.exp_()  # softmax, but for the factor 1 / sums
        sums = block.with_items.sums(p)
        if self.world.size > 1:
            sums, n, observed = self.world.sum(torch.stack([sums.to(n.dtype), n, observed]))
        less = x * (sums / n.clamp(min=torch.finfo(n.dtype).tiny))[block.rows]
        p.view(-1).index_add_(0, block.cells, less.to(p.dtype), alpha=-1)  # n softmax(l) - x, but for n / sums
        return n * (sums.log() + excess[:, 0]) - observed, n / sums


@dataclass(frozen=True)
class Logistic:
    """sum_i log(1 + e^l_i) where x_i = 0, x_i log(1 + e^-l_i) elsewhere. Its gradient: sigmoid(l), -x sigmoid(-l).

    As log(1 + e^-l) = log(1 + e^l) - l, the sum is over all items at first, and what events change is a sparse term.
    """

    world: World = ALONE

    def dense(self, logits: Tensor, x: Tensor) -> Tensor:
        return -torch.where(x > 0, x * F.logsigmoid(logits), F.logsigmoid(-logits)).sum(1)

    def block(self, block: Block) -> tuple[Tensor, float]:
        p, x, observed = block.logits, block.values, block.observed()
        torch.logaddexp(p, p.new_zeros(()), out=p)  # log(1 + e^l)
        nll = block.with_items.sums(p) + block.sum((x - 1) * _softplus(observed) - x * observed)
        p.neg_().expm1_()  # -sigmoid(l), from 1 - sigmoid(l) = e^-log(1 + e^l)
        p.view(-1)[block.cells] = (x * torch.sigmoid(-observed)).to(p.dtype)
        return self.world.sum(nll), -1.0


@dataclass(frozen=True)
class Normal:
    """sum_i c_i / 2 (x_i - l_i)^2, where c_i is 1 in items with an event. Its gradient is c_i (l_i - x_i)."""

    unobserved: float  # c_i in the others
    world: World = ALONE

    def dense(self, logits: Tensor, x: Tensor) -> Tensor:
        misses = (x - logits).square()
        return 0.5 * torch.where(x > 0, misses, self.unobserved * misses).sum(1)

    def block(self, block: Block) -> tuple[Tensor, float]:
        logits, x, observed = block.logits, block.values, block.observed()
        misses = (x - observed).square() - self.unobserved * observed.square()
        nll = 0.5 * (self.unobserved * block.with_items.squares(logits) + block.sum(misses))
        logits.view(-1)[block.cells] = ((observed - x) / self.unobserved).to(logits.dtype)
        return self.world.sum(nll), self.unobserved


def _softplus(logits: Tensor) -> Tensor:
    return torch.logaddexp(logits, logits.new_zeros(()))
