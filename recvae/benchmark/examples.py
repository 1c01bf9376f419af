"""Examples for a report: a few test users with what was hidden, what each model recommends, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from recvae.data.splits import Split
from recvae.models.base import Recommender

EXPLAINED = 3  # recommendations of a list that are explained
REASONS = 3  # items of the user's history that explain each


def user_examples(split: Split, models: Mapping[str, Recommender], n_users: int, N: int = 10) -> list[dict[str, Any]]:
    """Histories, held-out items and recommendations of a few test users, by title where titles are known.

    Returns
    -------
    list[dict[str, Any]]
        One dict for each user. Its `why` has, for each model with `explain` and each of the first recommendations, the
        items of the history that contribute most to the score, as pairs (title, contribution).
    """
    test = split.test
    names = item_labels(split)
    rows = np.linspace(0, len(test.users) - 1, min(n_users, len(test.users))).astype(int)
    users = rows if test.train_rows is None else test.train_rows[rows]
    ranked = {name: model.recommend(users, test.fold_in[rows], N=N)[0] for name, model in models.items()}
    return [
        {
            "user": str(test.users[row]),
            "history": [names[item] for item in test.fold_in[row].indices],
            "held_out": [names[item] for item in test.held_out[row].indices],
            "recommended": {name: [names[item] for item in ids[index] if item >= 0] for name, ids in ranked.items()},
            "why": {
                name: _reasons(model, test.fold_in[row], ranked[name][index], names)
                for name, model in models.items()
                if "explain" in model.abilities()
            },
        }
        for index, row in enumerate(rows)
    ]


def item_labels(split: Split) -> list[str]:
    """The label of each item: its title, or else its raw id, followed by its genres in brackets if known."""
    titles, genres = split.train.titles, split.train.genres
    names = [str(name) for name in (split.items if titles is None else titles)]
    return names if genres is None else [f"{name} [{genre}]" for name, genre in zip(names, genres, strict=True)]


def _reasons(model: Recommender, row: sparse.csr_matrix, ids: Any, names: list[str]) -> list[list[tuple[str, float]]]:
    """For each of the first ids, the items of the row with the largest positive contributions to its score."""
    explanations = [model.explain(0, row, int(item), N=REASONS)[1] for item in ids[:EXPLAINED] if item >= 0]
    return [[(names[item], float(f"{adds:.3g}")) for item, adds in parts if adds > 0] for parts in explanations]
