"""Matrix products in bfloat16: for the chunked likelihood, and low-precision screening for exact ranking."""

from __future__ import annotations

import torch
from torch import Tensor

from recvae.errors import InvalidDataError
from recvae.nn.layers import workspace
from recvae.utils.sparse_products import products_at
from recvae.utils.threads import lazy
from recvae.utils.topk import Rough
from recvae.utils.workers import use_workers

ITEMS = 4096  # in one block of a product that is split by items
MEASURED = 256  # rows of a weight whose lengths are computed at a time: they fit in the cache of a core
ROUNDING = 2.0**-8 * 1.01  # bound of the relative error of rounding to bfloat16
SUMMING = 2.0**-22  # bound of the relative error of a sum of products in float32, for each of its terms


class Bfloat16Products:
    """The products of users with a block of items: operands and results in bfloat16, sums in float32.

    The methods are those of `recvae.nn.likelihood.Float32Products`. The bias takes two more columns of the
    weight, for the nearest bfloat16 and its rounding error, and the hidden state has ones there. So its relative error
    is about 2^-16 instead of 2^-8, and no separate pass over the logits is needed.
    """

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor, bias: Tensor, out: Tensor | None = None):
        self.width, self.weight = weight.shape[1], self.table(weight) if out is None else out
        self.weight[:, : self.width] = weight
        self.weight[:, self.width :] = 0
        self.weight[:, self.width] = bias
        self.weight[:, self.width + 1] = bias - self.weight[:, self.width]

    @classmethod
    def table(cls, weight: Tensor) -> Tensor:
        """An uninitialised table for the weight and the columns of the bias, padded to full cache lines."""
        padded = -(-(weight.shape[1] + 2) // 32) * 32
        return workspace("output layer in bfloat16", (len(weight), padded), cls.dtype, weight.device)

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """(R, H) -> (R, I'), into `out` if it is given."""
        if out is None:
            out = workspace("block of logits", (len(hidden), len(self.weight)), self.dtype, hidden.device)
        return torch.mm(self._widened(hidden, 1), self.weight.T, out=out)

    def sums(self, p: Tensor) -> Tensor:
        """Sum of each row. (R, I) -> (R,)"""
        # torch rounds a sum to bfloat16 at its end: with 64 partial sums, the total itself is not rounded to bfloat16
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
        into: tuple[Tensor | None, Tensor | None, Tensor | None],
        first: bool,
    ) -> None:
        """Backpropagate p * scale[:, None], the gradient of the logits.

        The gradient (R, H) of hidden states is overwritten; those of weight and bias if `first`, else they are added.
        """
        grad_hidden, grad_weight, grad_bias = into
        if grad_hidden is not None:
            torch.mul((p @ self.weight)[:, : self.width], scale[:, None], out=grad_hidden)
        if grad_weight is None or grad_bias is None:
            return
        scaled = self._widened(hidden * scale[:, None], scale)
        scaled[:, self.width + 1] = scale - scaled[:, self.width]  # its rounding error may be the same for all users
        for start in range(0, len(self.weight), ITEMS):  # the result of a block is still in the cache when it is added
            items = slice(start, start + ITEMS)
            product = p[:, items].T @ scaled
            bias_product = product[:, self.width : self.width + 2].float().sum(1)
            for total, part in ((grad_weight, product[:, : self.width]), (grad_bias, bias_product)):
                if first:
                    total[items].copy_(part)
                else:
                    total[items].add_(part)

    def _widened(self, hidden: Tensor, ones: Tensor | float) -> Tensor:
        """Append the two columns for the bias, filled with `ones`. (R, H) -> (R, columns of the weight)"""
        wide = workspace("hidden state in bfloat16", (len(hidden), self.weight.shape[1]), self.dtype, hidden.device)
        wide[:, : self.width] = hidden
        wide[:, self.width :] = ones if isinstance(ones, float | int) else ones[:, None]
        return wide


class ScreenedLogits:
    """Low-precision screening: logits h W^T + b in bfloat16 with an error bound, recomputed in float32 where needed.

    With h' and W' rounded to bfloat16, h W^T - h' W'^T = h (W - W')^T + (h - h') W'^T, and by the
    Cauchy-Schwarz inequality its size is at most |h| max |W_i - W'_i| + |h - h'| max |W'_i| for every item. An item
    whose logit in bfloat16 is more than twice this bound below the k-th best is not among the k best, and needs no
    logit in float32. So rankings are exact, up to the order in which float32 sums the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.products = Bfloat16Products(weight, bias)
        rounded = self.products.weight[:, : weight.shape[1]]

        def lengths(start: int) -> tuple[Tensor, Tensor]:
            items = slice(start, start + MEASURED)
            near, part = rounded[items].float(), weight[items].contiguous()
            return near.norm(dim=1).max(), near.sub_(part).norm(dim=1).max()

        with use_workers() as workers:
            longest, errors = zip(*workers.map(lengths, range(0, len(weight), MEASURED)), strict=True)
        self.longest, self.largest_error = torch.stack(longest).max(), torch.stack(errors).max()
        self.largest_bias = bias.abs().max()
        if not (self.longest + self.largest_error + self.largest_bias).isfinite():
            raise InvalidDataError("Expected weights that are finite numbers; the model's output layer is damaged.")

    def __call__(self, hidden: Tensor) -> Rough:
        """Logits of hidden states (B, H) in bfloat16, with functions for their bounds and for exact logits."""
        length, off = hidden.norm(dim=1), (hidden - hidden.bfloat16()).norm(dim=1)
        error = length * self.largest_error + off * self.longest  # (B,)
        error += hidden.shape[1] * SUMMING * (length * self.longest + self.largest_bias)
        error += ROUNDING**2 * self.largest_bias  # the bias is rounded twice: to bfloat16, then its rounding error

        def within(kth: Tensor) -> Tensor:
            return _lower(_lower(_lower(kth.float()) - 2 * error[:, None])).to(kth.dtype)

        def exact(rows: Tensor, items: Tensor) -> Tensor:
            weight, positions = self._rows_of(items)
            return products_at(rows, positions, hidden, weight) + self.bias[items]

        return Rough(self.products.logits(hidden), within, exact)

    def _rows_of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Row-major rows of the weight that include those of `items`, and the positions of `items` among them.

        A weight stored by columns, for scoring, would be copied as a whole for any sparse product.
        """
        if not self.weight.is_contiguous() and 2 * len(items) < len(self.weight):
            distinct, positions = items.unique(return_inverse=True)
            return self.weight.index_select(0, distinct), positions
        return self._by_rows, items

    @lazy
    def _by_rows(self) -> Tensor:
        return self.weight.contiguous()


def _lower(x: Tensor) -> Tensor:
    """A lower bound of the number that was rounded to x, and of x after rounding to bfloat16."""
    return x - ROUNDING * x.abs()
