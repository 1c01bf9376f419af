"""Data classes of splits: training interactions, and users with held-out events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import ItemIndex, as_ids
from recvae.data.interactions import Ids, Interactions
from recvae.data.rows import check_rows
from recvae.data.splits.papers import write_files
from recvae.errors import InvalidDataError
from recvae.utils.checks import check_integer

NOT_BOTH = "nothing of theirs was held out, or seen"  # default reason for dropping users


@dataclass(frozen=True, eq=False)
class Holdout:
    """Users to evaluate on: events that a model sees, and events to predict. Only the two matrices are required.

    Parameters
    ----------
    fold_in, held_out : csr_matrix or csr_array
        (users, items) of values >= 0, disjoint. They are kept as canonical float32 csr_matrix: sorted, repeated cells
        added up, without explicit zeros. Other formats are refused as in `recommend`; the arguments are never changed.
    users : numpy.ndarray
        Raw ids of the rows; by default 0, 1, 2, ...
    dropped : int
        Number of users who were left out for the `reason`.
    item_counts : numpy.ndarray or None
        (items,) number of training users of each item: required for novelty and for groups of items by popularity.
    n_train : int or None
        Number of training users: required for novelty.
    train_rows : numpy.ndarray or None
        (users,) row of each user in the training data, if they are training users.
    item_ids : numpy.ndarray or None
        Raw ids of the columns. If the model, or the training part of a `Split`, has ids, too, columns are matched
        by them and other items are refused; otherwise only shapes are compared.
    reason : str
        Why users were dropped; by default because they have no held-out or no fold-in events.

    Raises
    ------
    InvalidTypeError, InvalidDataError
        If matrices are not as above, or are inconsistent.
    """

    fold_in: sparse.csr_matrix
    held_out: sparse.csr_matrix
    users: Ids = None  # type: ignore[assignment]  # an array after __post_init__
    dropped: int = 0
    item_counts: NDArray[np.int64] | None = None
    n_train: int | None = None
    train_rows: NDArray[np.int64] | None = None
    item_ids: Ids | None = None
    reason: str = NOT_BOTH

    def __post_init__(self) -> None:
        fold_in, held_out = check_rows(self.fold_in, name="fold_in"), check_rows(self.held_out, name="held_out")
        if fold_in.shape != held_out.shape:
            raise InvalidDataError(
                f"Expected fold_in and held_out of one shape, got {fold_in.shape} and {held_out.shape}."
            )
        n_users, n_items = fold_in.shape
        users = np.arange(n_users) if self.users is None else np.asarray(self.users)
        if users.shape != (n_users,):
            raise InvalidDataError(f"Expected {n_users} users, an id for each row, got shape {users.shape}.")
        _check_disjoint(fold_in, held_out, users)
        if self.n_train is not None:
            check_integer("n_train", self.n_train, 1)
        checked = {
            "fold_in": fold_in,
            "held_out": held_out,
            "users": users,
            "item_counts": _numbers(self.item_counts, n_items, "item_counts", "iuf"),
            "train_rows": _numbers(self.train_rows, n_users, "train_rows", "iu"),
            "item_ids": None if self.item_ids is None else as_ids(self.item_ids, n_items, "item_ids"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def over(self, item_ids: Ids | None) -> Holdout:
        """Reorder the columns to the order of `item_ids`, if both sides have ids.

        Parameters
        ----------
        item_ids : numpy.ndarray or None
            Raw ids in the requested order.

        Returns
        -------
        Holdout
            A copy, checked again.

        Raises
        ------
        InvalidDataError
            If the items differ, or arrays have been modified such that the holdout is no longer valid.
        """
        order = item_order(self.item_ids, item_ids)
        if order is None:
            return replace(self)
        return replace(
            self,
            fold_in=self.fold_in[:, order],
            held_out=self.held_out[:, order],
            item_counts=None if self.item_counts is None else self.item_counts[order],
            item_ids=item_ids,
        )

    def __repr__(self) -> str:
        return (
            f"Holdout({len(self.users):,} users, {self.fold_in.nnz:,} events folded in, {self.held_out.nnz:,} held out)"
        )


@dataclass(frozen=True)
class Split:
    """Training interactions, validation and test users over the same items.

    If they have ids, the columns of `valid`, `test` and `refit` are reordered to those of `train`.

    Parameters
    ----------
    train : Interactions
        Data to fit models on.
    valid, test : Holdout
        Users for model selection (epochs, hyper-parameters), and for the final evaluation.
    refit : Interactions or None
        If validation users are training users: `train` plus their validation events, on which a model is fitted again
        after model selection, before the test. None if validation users are other users.

    Raises
    ------
    InvalidDataError
        If a part is over other items, or its `train_rows` are not rows of `train`.
    """

    train: Interactions
    valid: Holdout
    test: Holdout
    refit: Interactions | None = None

    def __post_init__(self) -> None:
        for name, part in (("valid", self.valid), ("test", self.test)):
            if not isinstance(part, Holdout):  # refused by `evaluate`
                continue
            if part.fold_in.shape[1] != self.train.n_items:
                raise InvalidDataError(
                    f"Expected {name} over {self.train.n_items} items as in training, got {part.fold_in.shape[1]}."
                )
            if part.train_rows is not None and part.train_rows.max(initial=-1) >= self.train.n_users:
                raise InvalidDataError(
                    f"Expected train_rows of {name} below {self.train.n_users}, the number of training users, got "
                    f"{part.train_rows.max()}."
                )
            object.__setattr__(self, name, part.over(self.items))
        order = None if self.refit is None else item_order(self.refit.item_ids, self.items)
        if self.refit is not None and order is not None:
            object.__setattr__(self, "refit", self.refit.select_items(order))

    @property
    def items(self) -> Ids:
        return self.train.item_ids

    def write(self, folder: str | Path) -> None:
        """Write the split in the layout of the VAE papers' preprocessing, which `load_split` and other code read.

        The folder has train.csv, validation_tr.csv, validation_te.csv, test_tr.csv and test_te.csv with the columns
        uid,sid, and unique_sid.txt and unique_uid.txt with the raw ids by number. Users without events, or with nothing
        held out, are not in it; nor are values, times and titles. What is read from it and written again is equal, byte
        for byte.

        Parameters
        ----------
        folder : str or Path
            A new or an empty folder.

        Raises
        ------
        InvalidDataError
            If models do not read the values as binary, or the files cannot hold the split.
        OutputError
            If the folder contains something or cannot be written; nothing is left then.
        """
        parts = {"valid": self.valid, "test": self.test}
        for name, part in parts.items():
            if (part.train_rows is None) != (self.refit is None):
                raise InvalidDataError(
                    f"Expected {name} users who all are training users, with a refit, or none of them."
                )
        if self.refit is not None and (
            self.refit.n_events != self.train.n_events + self.valid.held_out.nnz
            or (np.diff(self.train.matrix.indptr) == 0).any()
        ):
            raise InvalidDataError(
                "Expected every user in training, and all of their validation events in valid, as the files have no "
                "other place, got a split with others; split in another way, such as per-user."
            )
        held = {name: (part.fold_in, part.held_out, part.users) for name, part in parts.items()}
        write_files(folder, self.train, held, known_users=self.refit is not None)


def item_order(own: Ids | None, wanted: Ids | None) -> NDArray[np.int64] | None:
    """Column of each of the `wanted` items in a holdout's `own` items, matched as by `ItemIndex`.

    None if there is nothing to reorder: the order is the same, or one side has no ids.

    Raises
    ------
    InvalidDataError
        If the items differ.
    """
    if own is None or wanted is None or np.array_equal(own, np.asarray(wanted)):
        return None
    positions = ItemIndex(own).positions(wanted)
    common = int((positions >= 0).sum())
    if len(own) != len(wanted) or common < len(wanted):
        raise InvalidDataError(
            f"Expected a holdout over the {len(wanted):,} items of the training, got one over {len(own):,} items, of "
            f"which {common:,} are among them; hold out from the data of the training, or bring other data to its "
            f"items first with Interactions.align(model.item_ids_)."
        )
    return None if (positions == np.arange(len(positions))).all() else positions


def _check_disjoint(fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix, users: Ids) -> None:
    both = fold_in.multiply(held_out).tocoo()
    if both.nnz:
        raise InvalidDataError(
            f"Expected held-out events that are not folded in, got {both.nnz:,} that are in both, such as column "
            f"{both.col[0]} of user {users[both.row[0]]}; leave them out of one."
        )


def _numbers(values: Any, n: int, name: str, kinds: str) -> NDArray[Any] | None:
    """Array of `n` finite numbers >= 0, or None. Raises InvalidDataError."""
    if values is None:
        return None
    numbers = np.asarray(values)
    if numbers.shape != (n,) or numbers.dtype.kind not in kinds or not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise InvalidDataError(
            f"Expected {n} numbers of 0 or more as {name}, got {numbers.dtype} of shape {numbers.shape}."
        )
    return numbers
