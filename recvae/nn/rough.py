"""Exact ranking at the speed of bfloat16: rough logits of all items, float32 for those that can be among the best."""

from __future__ import annotations

from torch import Tensor

from recvae.errors import InvalidDataError
from recvae.nn.csr import products_at
from recvae.nn.products import ITEMS, Bfloat16
from recvae.utils.threads import lazy
from recvae.utils.topk import Rough

ROUNDING = 2.0**-8 * 1.01  # a number is off by no more than this share of it, once rounded to bfloat16
SUMMING = 2.0**-22  # and a sum of products in float32 by this share of their size, for each of them


class RoughLogits:
    """Logits h W^T + b of one output layer for blocks of users, rough ones with a bound of their error.

    With h' and W' rounded to bfloat16, h W^T - h' W'^T = h (W - W')^T + (h - h') W'^T, and by Cauchy and Schwarz that
    is for no item more than |h| max |W_i - W'_i| + |h - h'| max |W'_i|. An item whose rough logit is further than
    twice this below the k-th best rough one is not among the k best, and needs no logit in float32. What remains is
    what float32 itself leaves open: the order in which products are summed.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.rounded = Bfloat16(weight, bias)
        rounded = self.rounded.weight[:, : weight.shape[1]]
        self.longest = max(part.float().norm(dim=1).max() for part in rounded.split(ITEMS))
        parts = zip(weight.split(ITEMS), rounded.split(ITEMS), strict=True)
        self.most_off = max((part - near).norm(dim=1).max() for part, near in parts)
        self.largest_bias = bias.abs().max()
        if not (self.longest + self.most_off + self.largest_bias).isfinite():
            raise InvalidDataError("Expected weights that are finite numbers; the model's output layer is damaged.")

    def __call__(self, hidden: Tensor) -> Rough:
        """Of hidden states (B, H)."""
        length, off = hidden.norm(dim=1), (hidden - hidden.bfloat16()).norm(dim=1)
        error = length * self.most_off + off * self.longest  # (B,)
        error += hidden.shape[1] * SUMMING * (length * self.longest + self.largest_bias)
        error += ROUNDING**2 * self.largest_bias  # which is rounded twice, the second time what the first left

        def within(kth: Tensor) -> Tensor:
            return _lower(_lower(_lower(kth.float()) - 2 * error[:, None])).to(kth.dtype)

        def exact(rows: Tensor, items: Tensor) -> Tensor:
            weight, places = self._rows_of(items)
            return products_at(rows, places, hidden, weight) + self.bias[items]

        return Rough(self.rounded.logits(hidden), within, exact)

    def _rows_of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of some items at least, by rows, and where in it these are.

        Of a layer that is laid out by columns, for scoring, torch would copy all to use any.
        """
        if not self.weight.is_contiguous() and 2 * len(items) < len(self.weight):
            distinct, places = items.unique(return_inverse=True)
            return self.weight.index_select(0, distinct), places
        return self._by_rows, items

    @lazy
    def _by_rows(self) -> Tensor:
        return self.weight.contiguous()


def _lower(x: Tensor) -> Tensor:
    """What a number is at least that was rounded to x, and what rounding x to bfloat16 gives at most."""
    return x - ROUNDING * x.abs()
