"""Lists made in the plainest way, one user at a time, to hold those of the package against."""

import numpy as np
import pyarrow as pa
from scipy import sparse


def lists(model, events, N, *, user="user", item="item", value=None, min_value=None, seen=()):
    """The N best items for each user of a table, none that the user has touched. -> {user: ([item], [score])}

    seen : pairs of a user and an item that were touched besides
    """
    liked, touched = {}, {}
    values = [1.0] * len(events) if value is None else events[value].to_pylist()
    for who, what, number in zip(events[user].to_pylist(), events[item].to_pylist(), values, strict=True):
        mine = liked.setdefault(who, {})
        touched.setdefault(who, set()).add(what)
        if number > 0 and (min_value is None or number >= min_value):
            mine[what] = mine.get(what, 0.0) + number
    for who, what in seen:
        liked.setdefault(who, {})
        touched.setdefault(who, set()).add(what)
    return {who: best(model, liked[who], touched[who], N) for who in sorted(liked)}


def best(model, liked, touched, N):
    """The N best items that are not touched for one user, who likes items by so much each."""
    names = np.asarray(model.item_ids_).tolist()
    row = sparse.csr_matrix([[liked.get(name, 0.0) for name in names]], dtype=np.float32)
    scores = model.score(row)[0]
    order = sorted(range(len(names)), key=lambda index: (-scores[index], index))
    chosen = [index for index in order if names[index] not in touched][:N]
    return [names[index] for index in chosen], [float(scores[index]) for index in chosen]


def of_table(table):
    """A table of ranked lists as `lists` gives them."""
    found = {}
    for row in pa.table(table).to_pylist():
        items, scores = found.setdefault(row["user"], ([], []))
        assert row["rank"] == len(items) + 1
        items.append(row["item"])
        scores.append(row["score"])
    return found


def same(found, expected):
    """Whether lists are those expected, users in the same order: scores to six digits."""
    assert list(found) == list(expected)
    for who, (items, scores) in expected.items():
        assert found[who][0] == items, who
        np.testing.assert_allclose(found[who][1], scores, rtol=1e-5, atol=1e-6)
