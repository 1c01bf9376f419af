"""EASE: a linear autoencoder whose weights have no diagonal, in closed form (Steck 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import log
from recvae.models.closed_form import ClosedForm


@parameters
class EASE(ClosedForm):
    """EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019).

        minimise  ||X - X B||^2 + lambda ||B||^2  over B with diag(B) = 0
        P = (X^T X + lambda I)^-1,  B = I - P / diag(P)             the division is by columns

    X is the users x items matrix, B (I, I) the weights: B_ij is the weight of item i in the score of item j. Without
    the constraint on the diagonal, B = I would fit perfectly, and be useless. Items are scored by x B. `l2` is lambda.
    """

    l2: float = hyper(
        300.0, "ridge penalty lambda on the weights; lower it if items have few users", low=0, search=log(3.0, 3000.0)
    )

    def _penalty(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(counts, self.l2)  # lambda I
