"""What a distribution over a latent space makes possible: places of users, users who never were, odd histories."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError, UnknownNameError
from recvae.models.base.abilities import hook, needs
from recvae.models.base.base import Model
from recvae.models.base.exploring import POSTERIOR, check_number, generator
from recvae.models.base.state import reads
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES

Latent = Literal["prior", "aggregate"]
LATENTS: tuple[str, ...] = get_args(Latent)
COLDEST = 1e-3  # temperature
BLOCK = 2048  # rows encoded at a time
MANY = 10_000  # reference rows that are enough
NEAR = 200  # reference rows of about a row's activity
LEAST = 1e-3  # nats that count as one unit at least, where reference rows are all alike


class Encoding(NamedTuple):
    """q(z | x) = N(mean, diag(exp(logvar))) of B users; of two levels, z1 and z2 side by side, z2 at its mean."""

    mean: NDArray[np.float32]  # (B, K)
    logvar: NDArray[np.float32]  # (B, K)


class Imagines(Model):
    """Verbs of models that believe in a distribution, not in a point."""

    @hook(POSTERIOR)
    def _posterior(self, rows: sparse.csr_matrix) -> Encoding:
        """q(z | x) of canonical rows whose values have been read."""
        raise NotImplementedError

    @hook(POSTERIOR)
    def _drawn(
        self,
        rows: sparse.csr_matrix,
        latent: str,
        temperature: float,
        places: np.random.Generator,
        items: np.random.Generator,
    ) -> sparse.csr_matrix:
        """A new history for each row, as long as it: z from its posterior or from the prior. -> csr (B, I) of ones"""
        raise NotImplementedError

    @hook(POSTERIOR)
    def _elbo_terms(self, rows: sparse.csr_matrix) -> NDArray[np.float64]:
        """-log p(x | z) for each event, at the mean of q(z | x), and KL(q(z | x) || p(z)), of active rows. -> (B, 2)"""
        raise NotImplementedError

    @needs("_posterior")
    @reads
    def encode(self, user_items: Any) -> Encoding:
        """Where users are in the latent space, and how sure the model is: features for clustering or a classifier.

        Parameters
        ----------
        user_items
            csr_matrix or csr_array (B, I).

        Returns
        -------
        Encoding
            `Encoding(mean, logvar)`, (B, K) float32 each.

        Raises
        ------
        RecvaeError
            As `recommend`.
        """
        rows = self._rows(user_items)
        parts = [self._posterior(rows[start : start + BLOCK]) for start in range(0, max(1, rows.shape[0]), BLOCK)]
        return Encoding(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    @needs("_drawn")
    @reads
    def sample_users(
        self,
        n: int,
        latent: Latent = "prior",
        *,
        user_items: Any = None,
        temperature: float = 1.0,
        random_state: int | None = None,
    ) -> sparse.csr_matrix:
        """Whole histories of n users who never were: z from `latent`, then items given z, none twice.

        Parameters
        ----------
        latent : Latent
            "prior", p(z) (of RecVAE's and HybridVAE's composite prior the part that knows no user, N(0, I)), or
            "aggregate", the mixture of q(z | x) over the rows.
        user_items
            csr (U, I), the rows; by default those that the model was fitted on in this process.
        temperature : float
            By which logits are divided; below 1, baskets keep closer to what is likely.
        random_state : int or None
            Seed of all draws; None draws one.

        Returns
        -------
        sparse.csr_matrix
            csr_matrix (n, I) of ones.

        Raises
        ------
        NotFittedError
            Where no rows are known.
        InvalidDataError
            For rows without any event.
        InvalidParameterError
            For n < 1 or a temperature below .001.
        UnknownNameError

        Notes
        -----
        With a multinomial likelihood a history is as long as the row whose posterior was drawn from or, for the prior,
        as one of the rows at random; and its items are drawn one after the other without replacement (Gumbel-top-n).
        In the others, each item has a coin of its own, and how many there are is theirs. HybridVAE draws from its
        network alone: scores of its linear path are no likelihood. Rows without events count as none.
        """
        n, temperature = check_integer("n", n, 1), check_number("temperature", temperature, COLDEST)
        if latent not in LATENTS:
            raise UnknownNameError.among("latent", latent, LATENTS)
        chosen, places, items = generator(random_state).spawn(3)
        rows, active = self._examples("user_items", user_items, "sample_users")
        users = active[chosen.integers(len(active), size=n)]
        step = max(1, BLOCK_BYTES // (4 * self.n_items_))
        blocks = [
            self._drawn(rows[users[start : start + step]], latent, temperature, places, items)
            for start in range(0, n, step)
        ]
        return sparse.vstack(blocks, format="csr")

    @needs("_elbo_terms")
    @reads
    def anomaly_score(self, user_items: Any, reference: Any = None) -> NDArray[np.float64]:
        """How odd the histories of users are: higher is odder, among users of like activity.

        Parameters
        ----------
        user_items
            csr_matrix or csr_array (B, I).
        reference
            csr (U, I), users to compare with; by default those that the model was fitted on in this process. Of more
            than 10,000, no more than that many, at even distances.

        Returns
        -------
        NDArray[np.float64]
            (B,) float64; a row without events says nothing, and has 0.

        Raises
        ------
        NotFittedError
            Where no reference is known.
        InvalidDataError
            For one without any event.

        Notes
        -----
        Of the ELBO's two terms -log p(x | z) for each event, at the posterior's mean, and KL(q(z | x) || p(z)) each is
        taken less its median among the 200 reference rows nearest in number of items, in units of the median absolute
        deviation there (times 1.4826: a standard deviation, where values are normal). The score is the root of the sum
        of their squares, where the first term counts only if it is worse than usual. So it needs no draw, and rows of 5
        items and of 500 may stand in one list. The second counts either way: the model can make nothing of a row and
        stays near the prior, or has learned an odd row by heart and goes far (measured in docs/latent.md).
        """
        rows = self._rows(user_items)
        others, active = self._examples("reference", reference, "anomaly_score")
        others = others[active[:: -(-len(active) // MANY)]]
        sizes, scores = np.diff(rows.indptr), np.zeros(rows.shape[0])
        some = np.flatnonzero(sizes)
        terms, usual = self._all_terms(rows[some]), self._all_terms(others)
        far = standardized(terms, usual, sizes[some], np.diff(others.indptr))
        far[:, 0] = np.maximum(far[:, 0], 0)
        scores[some] = np.sqrt((far**2).sum(1))
        return scores

    def _all_terms(self, rows: sparse.csr_matrix) -> NDArray[np.float64]:
        starts = range(0, rows.shape[0], BLOCK)
        return np.concatenate([np.zeros((0, 2)), *(self._elbo_terms(rows[start : start + BLOCK]) for start in starts)])

    def _examples(self, name: str, given: Any, verb: str) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
        """Rows to go by, given or of the fit, and which of them have events."""
        rows = self._trained_rows(f"{verb}, as {name}") if given is None else self._rows(given)
        active = np.flatnonzero(np.diff(rows.indptr))
        if not len(active):
            raise InvalidDataError(f"Expected rows with events as {name}, got {rows.shape[0]} without any.")
        return rows, active


def standardized(
    values: NDArray[np.float64], others: NDArray[np.float64], sizes: NDArray[Any], sizes_of_others: NDArray[Any]
) -> NDArray[np.float64]:
    """Values less the medians of the `NEAR` others nearest in the order of sizes, in units of 1.4826 times their MAD.

    Parameters
    ----------
    values : NDArray[np.float64]
        (B, T).
    others : NDArray[np.float64]
        (U, T) with U >= 1.
    sizes : NDArray[Any]
        (B,).
    sizes_of_others : NDArray[Any]
        (U,).

    Returns
    -------
    NDArray[np.float64]
        (B, T).
    """
    order = np.argsort(sizes_of_others, kind="stable")
    others, sorted_sizes = others[order], sizes_of_others[order]
    kinds, kind_of = np.unique(sizes, return_inverse=True)
    middle = (np.searchsorted(sorted_sizes, kinds) + np.searchsorted(sorted_sizes, kinds, side="right")) // 2
    starts = np.clip(middle - NEAR // 2, 0, max(0, len(others) - NEAR))
    medians, units = (np.empty((len(kinds), values.shape[1])) for _ in range(2))
    for place, start in enumerate(starts):
        near = others[start : start + NEAR]
        medians[place] = np.median(near, axis=0)
        units[place] = 1.4826 * np.median(np.abs(near - medians[place]), axis=0)
    return (values - medians[kind_of]) / np.maximum(units, LEAST)[kind_of]
