"""Re-rankers that shorten longer lists: a cap on items per category, and maximal marginal relevance."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.validation import as_array, checked_sparse
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, OutOfRangeError
from recvae.utils.allowed import PAD_ID, PAD_SCORE, Ranking
from recvae.utils.checks import check_integer
from recvae.utils.greedy import BLOCK, Choice, chosen_items, kinds_of, unit_rows


def category_matrix(categories: Sequence[Any]) -> sparse.csr_matrix:
    """Turn the labels of items into a matrix of items x categories.

    Parameters
    ----------
    categories : sequence
        For each item a string, with "|" between several labels, as in `Interactions.genres`, or a list of labels. An
        item of "" or [] has no category.

    Returns
    -------
    scipy.sparse.csr_matrix
        (I, C), 1 where an item has a category; categories are in ascending order.

    Raises
    ------
    InvalidTypeError
        If labels are not strings.
    """
    if categories is None:
        raise InvalidTypeError("Expected the categories of the items, got None; these data have no genres.")
    labels = [[part for part in label.split("|") if part] if isinstance(label, str) else label for label in categories]
    for index, entry in enumerate(labels):
        if not isinstance(entry, (list, tuple, set, frozenset)) or not all(isinstance(label, str) for label in entry):
            raise InvalidTypeError(
                f"Expected a string or a list of strings as the categories of item {index}, got {entry!r:.40}."
            )
    column_of = {label: index for index, label in enumerate(sorted({label for entry in labels for label in entry}))}
    columns = np.array([column_of[label] for entry in labels for label in sorted(set(entry))], dtype=np.int64)
    indptr = np.cumsum([0, *(len(set(entry)) for entry in labels)])
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, indptr), (len(labels), len(column_of)))


def cap_categories(ids: Any, scores: Any, categories: Any, cap: int, N: int) -> Ranking:
    """The first N items of each list, with at most `cap` items of any category.

    Parameters
    ----------
    ids, scores : numpy.ndarray
        (L,) or (B, L), as `model.recommend` gives them with N = L.
    categories : csr_matrix or sequence
        (I, C), the categories of the items, or labels as `category_matrix` takes them. An item counts for all of its
        categories, and is kept only if none of them is full; an item without a category is always kept.
    cap : int
        Largest number of items of one category.
    N : int
        Length of the new lists.

    Returns
    -------
    Ranking
        (ids, scores) of shape (N,) or (B, N) in the order of the lists, padded with -1 and -FLT_MAX if a list runs out.

    Raises
    ------
    InvalidTypeError, InvalidDataError
        If lists and categories do not fit.
    OutOfRangeError
        If an item has no row in `categories`.
    InvalidParameterError
        If `cap` or `N` is below 1.
    """
    if not sparse.issparse(categories):
        categories = category_matrix(categories)
    cap, N = check_integer("cap", cap, 1), check_integer("N", N, 1)
    kinds = kinds_of(checked_sparse(categories, "categories").tocsr())  # (I, M)
    return _rerank(ids, scores, len(kinds), N, Choice(kinds=kinds, cap=cap))


def mmr(ids: Any, scores: Any, vectors: Any, N: int, trade_off: float = 0.7) -> Ranking:
    """N items of each list by maximal marginal relevance: relevant, and not similar to those already taken.

    Items are taken one after the other, each time the one with the highest

        trade_off * score - (1 - trade_off) * highest cosine with an item already taken

    and among ties the first in the list. Scores are scaled to [0, 1] in each list.

    Parameters
    ----------
    ids, scores : numpy.ndarray
        (L,) or (B, L), as `model.recommend` gives them with N = L.
    vectors : numpy.ndarray
        (I, K), one for each item of the model; a vector of zeros is similar to nothing.
    N : int
        Length of the new lists.
    trade_off : float
        From 0 (only diversity counts) to 1 (only the score counts).

    Returns
    -------
    Ranking
        (ids, scores) of shape (N,) or (B, N) in the order in which items were taken, with their original scores, padded
        with -1 and -FLT_MAX if a list runs out.

    Raises
    ------
    InvalidTypeError, InvalidDataError
        If lists and vectors do not fit.
    OutOfRangeError
        If an item has no vector.
    InvalidParameterError
        If `N` is below 1 or `trade_off` outside of [0, 1].

    References
    ----------
    Carbonell & Goldstein 1998, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries".
    """
    N, trade_off = check_integer("N", N, 1), _check_trade_off(trade_off)
    units = _units(vectors)  # (I, K)
    return _rerank(ids, scores, len(units), N, Choice(units=units, trade_off=trade_off))


def _rerank(ids: Any, scores: Any, n_items: int, N: int, choice: Choice) -> Ranking:
    """The N items that are chosen from each list, in blocks of lists."""
    ids, scores = _check_lists(ids, scores, n_items)
    lists, values = np.atleast_2d(ids).astype(np.int64), np.atleast_2d(scores)
    if not lists.shape[1]:
        lists, values = np.full((len(lists), 1), PAD_ID), np.full((len(lists), 1), np.float32(PAD_SCORE))
    step = max(1, BLOCK // (lists.shape[1] * choice.width()))
    blocks = [slice(start, start + step) for start in range(0, max(1, len(lists)), step)]
    chosen = np.concatenate([choice.positions(lists[block], values[block], N) for block in blocks])
    best, best_scores = chosen_items(lists, values, chosen)
    return (best, best_scores) if ids.ndim == 2 else (best[0], best_scores[0])


def _check_lists(ids: Any, scores: Any, n_items: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    ids, scores = as_array(ids, "ids"), as_array(scores, "scores")
    if ids.ndim not in (1, 2) or ids.shape != scores.shape:
        raise InvalidDataError(
            f"Expected ids and scores of one shape, (L,) or (lists, L), got {ids.shape} and {scores.shape}."
        )
    if ids.size and (ids.dtype.kind not in "iu" or scores.dtype.kind != "f"):
        raise InvalidTypeError(
            f"Expected integers as ids and floats as scores, as recommend gives them, got {ids.dtype} and "
            f"{scores.dtype}."
        )
    if ids.size and (ids.min() < PAD_ID or ids.max() >= n_items):
        raise OutOfRangeError(
            f"Expected items from 0 to {n_items - 1}, or {PAD_ID} for none, got {ids.min()} to {ids.max()}."
        )
    if not np.isfinite(scores[ids >= 0]).all():
        raise InvalidDataError("Expected finite scores of all items in the lists, got others.")
    return ids, scores.astype(np.float32)


def _units(vectors: Any) -> NDArray[np.float32]:
    """Vectors scaled to unit length; zero vectors stay zero. -> (I, K)"""
    vectors = as_array(vectors, "vectors")
    if vectors.ndim != 2 or vectors.dtype.kind not in "iuf":
        raise InvalidTypeError(
            f"Expected vectors as an array of numbers (items, K), got {vectors.dtype} of shape {vectors.shape}."
        )
    if not np.isfinite(vectors).all():
        raise InvalidDataError("Expected finite vectors, got others.")
    return unit_rows(vectors)


def _check_trade_off(trade_off: Any) -> float:
    if not isinstance(trade_off, numbers.Real) or isinstance(trade_off, bool) or not 0 <= float(trade_off) <= 1:
        raise InvalidParameterError(f"Expected trade_off from 0 to 1, got {trade_off!r}.")
    return float(trade_off)
