"""Lists of a closed-form model from its file, without torch: loading torch takes longer than ranking some users.

For the command line, which starts anew for each request of a few users. The lists are those of the model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import Ids, ItemIndex, id_array
from recvae.data.names import VALUES
from recvae.data.rows import check_rows, transform_values
from recvae.data.weight_spec import preparation_from_file
from recvae.errors import InvalidDataError
from recvae.utils.allowed import PAD_ID, PAD_SCORE, Allowed, Ranking
from recvae.utils.memory import require_memory

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.rules import ItemRules

CLASSES = ("EASE", "EDLAE")  # their scores are x B
FORMAT = 1  # of model files
BLOCK_BYTES = 20 << 20  # of scores in memory at a time
Weights: TypeAlias = NDArray[np.float32] | sparse.csr_matrix


class LinearLists:
    """Ranks items by x B, as the closed-form model of the file does.

    Parameters
    ----------
    weights : numpy.ndarray or csr_matrix
        B, (I, I) float32.
    values : str
        How values are read: "binary", "log1p" or "raw".
    item_ids, titles : numpy.ndarray
        Raw ids and, if known, titles of the items.
    preparation : dict
        As `preparation_` of a model.
    """

    def __init__(
        self,
        weights: Weights,
        values: str,
        item_ids: Ids,
        titles: Ids | None,
        preparation: dict[str, Any] | None = None,
    ):
        self.preparation_ = preparation or {}
        self._weights, self._values = weights, values
        self._item_ids, self._titles = item_ids, titles

    def known_items(self) -> ItemIndex:
        """As `Recommender.known_items`."""
        return ItemIndex(self._item_ids)

    def ranked_table(
        self,
        users: Ids,
        user_items: sparse.csr_matrix,
        N: int,
        *,
        seen: sparse.csr_matrix | None = None,
        rules: ItemRules | None = None,
    ) -> pa.Table:
        """As `Recommender.ranked_table`."""
        from recvae.data.histories import ranking_table

        n_items = len(self._item_ids)
        rows = transform_values(check_rows(user_items, n_items), self._values)  # (U, I)
        N, allowed = min(N, n_items), Allowed(seen=seen)
        chosen = None if rules is None else rules.select(users)
        if chosen is not None:
            users, rows, allowed = users[chosen], rows[chosen], allowed.take(chosen)

        def rank(some: NDArray[np.int64], N: int, allowed: Allowed, filter_seen: bool) -> Ranking:
            return self._rank(rows if len(some) == rows.shape[0] else rows[some], N, allowed, filter_seen)

        if rules is None:
            ids, scores = rank(np.arange(rows.shape[0]), N, allowed, True)
        else:
            ids, scores = rules.rank(rank, users, N, allowed)
        return ranking_table(users, ids, scores, self._item_ids, self._titles)

    def _rank(self, rows: sparse.csr_matrix, N: int, allowed: Allowed, filter_seen: bool) -> Ranking:
        """As `recvae.utils.topk.rank`."""
        ids = np.full((rows.shape[0], N), PAD_ID, dtype=np.int32)
        scores = np.full((rows.shape[0], N), PAD_SCORE, dtype=np.float32)
        step = max(1, BLOCK_BYTES // (4 * rows.shape[1]))
        for start in range(0, rows.shape[0], step):
            block = slice(start, start + step)
            ids[block], scores[block] = self._best(rows[block], N, allowed, block, filter_seen)
        return ids, scores

    def _best(
        self, rows: sparse.csr_matrix, N: int, allowed: Allowed, block: slice, filter_seen: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The N best allowed items of each row, best first, equal scores by ascending id. (B, I) -> (B, N) each"""
        product = rows @ self._weights
        scores = np.ascontiguousarray(product.toarray() if sparse.issparse(product) else product)  # (B, I)
        if scores.size and not np.isfinite(scores).all():
            raise InvalidDataError("Expected scores that are finite, got NaN or inf; the model's weights are damaged.")
        allowed.apply(scores, block, rows if filter_seen else None)
        ids = np.full((len(scores), N), PAD_ID, dtype=np.int32)
        best = np.full((len(scores), N), PAD_SCORE, dtype=np.float32)
        least = np.partition(scores, scores.shape[1] - N, axis=1)[:, scores.shape[1] - N]  # N-th best of each row
        for row, threshold in enumerate(least):
            columns = np.flatnonzero((scores[row] >= threshold) & (scores[row] > -np.inf))
            columns = columns[np.argsort(-scores[row, columns], kind="stable")[:N]]
            ids[row, : len(columns)], best[row, : len(columns)] = columns, scores[row, columns]
        return ids, best


def open_linear(file: Path) -> LinearLists | None:
    """The lists of the model in a file; None if it is no closed-form model with raw ids, or not as it should be.

    `recvae.load` then loads it, or says what is wrong with it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as content:
            metadata: dict[str, str] = content.metadata()
            description = json.loads(metadata["recvae"])
            if description["class"] not in CLASSES or description["format"] != FORMAT:
                return None
            require_memory(file.stat().st_size, f"the model file {file}", "a machine with more memory")
            arrays: dict[str, NDArray[Any]] = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        if metadata["sha256"] != _checksum(arrays, metadata["recvae"]) or description["values"] not in VALUES:
            return None
        ids = id_array(description["item_ids"], "item_ids")
        titles = None if description["titles"] is None else id_array(description["titles"], "titles")
        weights = _weights(arrays, len(ids))
        preparation = preparation_from_file(description.get("preparation", {}))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError, InvalidDataError):
        return None
    counts = {len(ids), description["n_items"], len(set(description["item_ids"]))}
    if weights is None or len(counts) > 1 or (titles is not None and len(titles) != len(ids)):
        return None
    return LinearLists(weights, description["values"], ids, titles, preparation)


def _weights(arrays: dict[str, NDArray[Any]], n_items: int) -> Weights | None:
    """B from the arrays of a file, dense or as the parts of a CSR matrix; None if they are none, or not finite."""
    shape = (n_items, n_items)
    if set(arrays) == {"weights"}:
        dense = arrays["weights"]
        usable = dense.shape == shape and dense.dtype == np.float32 and np.isfinite(dense).all()
        return dense if usable else None
    if set(arrays) != {"data", "indices", "indptr"}:
        return None
    data, indices, indptr = (arrays[name] for name in ("data", "indices", "indptr"))
    if data.dtype != np.float32 or indices.dtype.kind != "i" or indptr.dtype.kind != "i" or not np.isfinite(data).all():
        return None
    matrix = sparse.csr_matrix((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)  # ValueError for indices out of range
    return matrix


def _checksum(arrays: dict[str, NDArray[Any]], text: str) -> str:
    """The checksum that `recvae.models.base.model_file` writes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} torch.{arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
