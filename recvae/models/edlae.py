"""EDLAE: EASE trained to reconstruct events that dropout hides, in closed form (Steck 2020)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import log, uniform
from recvae.models.closed_form import ClosedForm


@parameters
class EDLAE(ClosedForm):
    """EDLAE of full rank (Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020).

        minimise  E ||(1 - delta) * (X - (delta * X) B)||^2 + lambda ||B||^2,  delta_ui ~ Bernoulli(1 - p)
        P = (X^T X + Lambda + lambda I)^-1,  Lambda = p / (1 - p) diag(X^T X)
        B = I - P / diag(P)                                         the division is by columns

    The error counts only where dropout hid an event: emphasised denoising in the limit a -> infinity, in which no item
    can predict itself and diag(B) = 0. (A factor of B and of lambda that does not affect rankings is omitted.) Popular
    items are penalised more than in EASE, which is p = 0. Items are scored by x B. `l2` is lambda, `dropout` is p.
    """

    l2: float = hyper(
        100.0, "ridge penalty lambda on the weights, in addition to that of dropout", low=0, search=log(3.0, 3000.0)
    )
    dropout: float = hyper(
        0.5, "share p of the events that are hidden and reconstructed", low=0, high=0.99, search=uniform(0.1, 0.7)
    )

    def _penalty(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.float32(self.l2) + np.float32(self.dropout / (1 - self.dropout)) * counts  # lambda I + Lambda
