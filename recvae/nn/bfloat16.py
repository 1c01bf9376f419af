"""Products in bfloat16: those of the chunked likelihood, and low-precision screening for exact ranking."""

from __future__ import annotations

import torch
from torch import Tensor

from recvae.errors import InvalidDataError
from recvae.nn.layers import products_at, workspace
from recvae.utils.threads import lazy
from recvae.utils.topk import Rough

ITEMS = 4096  # of a product that is split by items
ROUNDING = 2.0**-8 * 1.01  # a number is off by no more than this share of it, once rounded to bfloat16
SUMMING = 2.0**-22  # and a sum of products in float32 by this share of their size, for each of them


class Bfloat16Products:
    """The products of a chunk of users with all items: operands and results in bfloat16, sums in float32.

    The methods are those of `recvae.nn.likelihood.Float32Products`. The bias is two more columns of the weight, met by
    ones in the hidden state: the nearest bfloat16, and what that is off by. So it is as exact as in float32, and costs
    no pass of its own over the logits.
    """

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor, bias: Tensor):
        n_items, self.width = weight.shape
        padded = -(-(self.width + 2) // 32) * 32  # full cache lines
        self.weight = workspace("output layer in bfloat16", (n_items, padded), self.dtype, weight.device)
        self.weight[:, : self.width] = weight
        self.weight[:, self.width :] = 0
        self.weight[:, self.width] = bias
        self.weight[:, self.width + 1] = bias - self.weight[:, self.width]

    def logits(self, hidden: Tensor) -> Tensor:
        """(R, H) -> (R, I)"""
        out = workspace("block of logits", (len(hidden), len(self.weight)), self.dtype, hidden.device)
        return torch.mm(self._widened(hidden, 1), self.weight.T, out=out)

    def sums(self, p: Tensor) -> Tensor:
        """Sum of each row. (R, I) -> (R,)"""
        # a sum in bfloat16 is rounded once, at its end: in 64 partial sums, no rounding is one of the total
        n_items = p.shape[1]
        even = n_items - n_items % 64
        return p[:, :even].unflatten(1, (64, even // 64)).sum(2).float().sum(1) + p[:, even:].sum(1)

    def sums_of_squares(self, p: Tensor) -> Tensor:
        """Sum of the squares of each row. (R, I) -> (R,)"""
        return torch.stack([part.float().square().sum(1) for part in p.split(ITEMS, dim=1)]).sum(0)

    def backward(
        self,
        p: Tensor,
        hidden: Tensor,
        scale: Tensor,
        rows: slice,
        into: tuple[Tensor | None, Tensor | None, Tensor | None],
    ) -> None:
        """Gradients by the gradient p * scale[:, None] in the logits of `rows`; the first chunk writes, others add."""
        of_hidden, of_weight, of_bias = into
        if of_hidden is not None:
            of_hidden[rows] = (p @ self.weight)[:, : self.width] * scale[:, None]
        if of_weight is None or of_bias is None:
            return
        scaled = self._widened(hidden * scale[:, None], scale)
        scaled[:, self.width + 1] = scale - scaled[:, self.width]  # where all users have one scale, rounding would stay
        for start in range(0, len(self.weight), ITEMS):  # what a product gives is in the cache when it is added up
            items = slice(start, start + ITEMS)
            product = p[:, items].T @ scaled
            bias_product = product[:, self.width : self.width + 2].float().sum(1)
            for total, part in ((of_weight, product[:, : self.width]), (of_bias, bias_product)):
                if rows.start == 0:
                    total[items].copy_(part)
                else:
                    total[items].add_(part)

    def _widened(self, hidden: Tensor, ones: Tensor | float) -> Tensor:
        """(R, H) with the two columns that meet the bias. -> (R, columns of the weight)"""
        wide = workspace("hidden state in bfloat16", (len(hidden), self.weight.shape[1]), self.dtype, hidden.device)
        wide[:, : self.width] = hidden
        wide[:, self.width :] = ones if isinstance(ones, float | int) else ones[:, None]
        return wide


class ScreenedLogits:
    """Low-precision screening: logits h W^T + b in bfloat16 with a bound of their error, float32 where it matters.

    With h' and W' rounded to bfloat16, h W^T - h' W'^T = h (W - W')^T + (h - h') W'^T, and by Cauchy and Schwarz that
    is for no item more than |h| max |W_i - W'_i| + |h - h'| max |W'_i|. An item whose logit in bfloat16 is further than
    twice this below the k-th best one is not among the k best, and needs no logit in float32. So rankings are exact;
    what remains is what float32 itself leaves open, the order in which products are summed.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.products = Bfloat16Products(weight, bias)
        rounded = self.products.weight[:, : weight.shape[1]]
        self.longest = max(part.float().norm(dim=1).max() for part in rounded.split(ITEMS))
        parts = zip(weight.split(ITEMS), rounded.split(ITEMS), strict=True)
        self.largest_error = max((part - near).norm(dim=1).max() for part, near in parts)
        self.largest_bias = bias.abs().max()
        if not (self.longest + self.largest_error + self.largest_bias).isfinite():
            raise InvalidDataError("Expected weights that are finite numbers; the model's output layer is damaged.")

    def __call__(self, hidden: Tensor) -> Rough:
        """Logits of hidden states (B, H), with what finds the exact ones."""
        length, off = hidden.norm(dim=1), (hidden - hidden.bfloat16()).norm(dim=1)
        error = length * self.largest_error + off * self.longest  # (B,)
        error += hidden.shape[1] * SUMMING * (length * self.longest + self.largest_bias)
        error += ROUNDING**2 * self.largest_bias  # which is rounded twice, the second time what the first left

        def within(kth: Tensor) -> Tensor:
            return _lower(_lower(_lower(kth.float()) - 2 * error[:, None])).to(kth.dtype)

        def exact(rows: Tensor, items: Tensor) -> Tensor:
            weight, positions = self._rows_of(items)
            return products_at(rows, positions, hidden, weight) + self.bias[items]

        return Rough(self.products.logits(hidden), within, exact)

    def _rows_of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of some items at least, by rows, and the positions of the items in it.

        Of a layer that is laid out by columns, for scoring, torch would copy all to use any.
        """
        if not self.weight.is_contiguous() and 2 * len(items) < len(self.weight):
            distinct, positions = items.unique(return_inverse=True)
            return self.weight.index_select(0, distinct), positions
        return self._by_rows, items

    @lazy
    def _by_rows(self) -> Tensor:
        return self.weight.contiguous()


def _lower(x: Tensor) -> Tensor:
    """A lower bound of a number that was rounded to x, and of what rounding x to bfloat16 gives."""
    return x - ROUNDING * x.abs()
