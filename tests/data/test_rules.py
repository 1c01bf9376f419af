"""Rules for lists: those of brute force, each alone and in pairs; what they refuse, and what they say."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae import EASE, Interactions, Rules
from recvae.data.rules import UnknownIds, UnknownIdsWarning
from recvae.data.rules import resolved as resolved_rules
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, RecvaeError
from recvae.models.base import UnknownItemsWarning
from recvae.serving.linear import LinearLists

ITEMS = [f"i{number}" for number in range(24)]
HISTORIES = {f"u{user}": [ITEMS[(user * 5 + step * step) % 24] for step in range(user)] for user in range(7)}
CATEGORIES = {item: ["", "a", "b", "c", "a|b", "b|c", "a|c|d"][number * 5 % 7] for number, item in enumerate(ITEMS)}
LABELS = {item: set(filter(None, labels.split("|"))) for item, labels in CATEGORIES.items()}


@pytest.fixture(scope="module")
def model():
    random = np.random.default_rng(0)
    dense = (random.random((60, 24)) < 0.25).astype(np.float32)
    return EASE(l2=5.0).fit(Interactions(sparse.csr_matrix(dense), np.arange(60), np.array(ITEMS, dtype=object)))


some_items = st.lists(st.sampled_from(ITEMS), max_size=16, unique=True)
of_users = st.dictionaries(st.sampled_from([*HISTORIES, "other"]), some_items, max_size=6)
EACH = {
    "allow": st.fixed_dictionaries({"allow": st.lists(st.sampled_from(ITEMS), min_size=1, max_size=20, unique=True)}),
    "deny": st.fixed_dictionaries({"deny": some_items}),
    "user_allow": st.fixed_dictionaries({"user_allow": of_users}),
    "user_deny": st.fixed_dictionaries({"user_deny": of_users}),
    "may_repeat": st.fixed_dictionaries({"may_repeat": st.one_of(st.booleans(), some_items)}),
    "only_users": st.fixed_dictionaries({"only_users": st.lists(st.sampled_from([*HISTORIES]), min_size=1)}),
    "category_cap": st.fixed_dictionaries({"category_cap": st.integers(1, 3), "categories": st.just(CATEGORIES)}),
    "mmr": st.fixed_dictionaries(
        {"mmr": st.sampled_from([0, 0.3, 0.7, 1]), "mmr_pool": st.integers(1, 30), "categories": st.just(CATEGORIES)}
    ),
    "new_items": st.fixed_dictionaries(
        {"new_items": some_items, "new_places": st.one_of(st.integers(1, 5), st.sampled_from([0.01, 0.3, 0.9]))}
    ),
}


def brute_force(model, histories, N, rules):
    """{user: [item]}, one item after the other, in the plainest way."""
    N, lists = min(N, len(ITEMS)), {}
    for user, history in histories.items():
        if user not in rules.get("only_users", histories):
            continue
        row = sparse.csr_matrix([[float(item in history) for item in ITEMS]], dtype=np.float32)
        scores = dict(zip(ITEMS, model.score(row)[0].tolist(), strict=True))
        again = rules.get("may_repeat", False)
        again = ITEMS if again is True else again or []
        may = [
            item
            for item in ITEMS
            if item in rules.get("allow", ITEMS)
            and item in rules.get("user_allow", {}).get(user, ITEMS)
            and item not in rules.get("deny", [])
            and item not in rules.get("user_deny", {}).get(user, [])
            and (item not in history or item in again)
        ]
        ranking = sorted(may, key=lambda item: -scores[item])
        lists[user] = taken_from(ranking, scores, N, rules)
    return lists


def taken_from(ranking, scores, N, rules):
    new = rules.get("new_items", [])
    places = rules.get("new_places", 0)
    places = min(N, math.ceil(places * N) if isinstance(places, float) else places)
    taken = []
    while len(taken) < N:
        free = [item for item in ranking if item not in taken and has_room(item, taken, rules.get("category_cap"))]
        free_new = [item for item in free if item in new]
        if min(places - len([item for item in taken if item in new]), len(free_new)) >= N - len(taken):
            free = free_new
        if not free:
            break
        taken.append(best_of(free, taken, ranking, scores, rules))
    return taken if "mmr" in rules else sorted(taken, key=ranking.index)


def has_room(item, taken, cap):
    return cap is None or all(sum(label in LABELS[other] for other in taken) < cap for label in LABELS[item])


def best_of(free, taken, ranking, scores, rules):
    pool = ranking[: rules.get("mmr_pool", 0)]
    in_pool = [item for item in free if item in pool]
    if not in_pool:
        return free[0]
    low, high = scores[pool[-1]], scores[pool[0]]

    def worth(item):
        relevance = (scores[item] - low) / (high - low) if high > low else 0
        return rules["mmr"] * relevance - (1 - rules["mmr"]) * max((cosine(item, other) for other in taken), default=0)

    return max(in_pool, key=worth)


def cosine(one, other):
    both = LABELS[one] & LABELS[other]
    return round(len(both) / math.sqrt(len(LABELS[one]) * len(LABELS[other])), 6) if both else 0


def lists_of(table, users):
    found = {user: [] for user in users}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        found[user].append(item)
    return found


@pytest.mark.parametrize("names", [*combinations(EACH, 1), *combinations(EACH, 2), tuple(EACH)], ids="-".join)
def test_lists_are_those_of_brute_force(names, model):
    lists = LinearLists(model.weights_.numpy(), "binary", model.item_ids_, None)
    users, rows = np.array(list(HISTORIES), dtype=object), rows_of(HISTORIES)

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.tuples(*(EACH[name] for name in names)), st.sampled_from([1, 3, 5, 10, 30]))
    def check(parts, N):
        rules = {name: value for part in parts for name, value in part.items()}
        expected = brute_force(model, HISTORIES, N, rules)
        found = model.recommend_for(HISTORIES, N, rules=Rules(**rules))
        assert lists_of(found, expected) == expected
        resolved = Rules(**rules).resolve(lists.known_items())
        assert lists_of(lists.ranked_table(users, rows, N, rules=resolved), expected) == expected

    check()


def rows_of(histories):
    dense = [[float(item in history) for item in ITEMS] for history in histories.values()]
    return sparse.csr_matrix(dense, dtype=np.float32)


def test_blocks_of_users_change_nothing(model, monkeypatch):
    rules = Rules(categories=CATEGORIES, category_cap=1, new_items=ITEMS[:9], new_places=2)
    whole = model.recommend_for(HISTORIES, 6, rules=rules)
    monkeypatch.setattr(resolved_rules, "BLOCK", 1)
    assert model.recommend_for(HISTORIES, 6, rules=rules).equals(whole)


def test_seen_items_never_come_again_and_lists_of_items_apply_too(model):
    seen = {"u5": [ITEMS[3]]}
    found = model.recommend_for(HISTORIES, 24, seen=seen, filter_items=ITEMS[:2], rules=Rules(may_repeat=True))
    expected = brute_force(model, HISTORIES, 24, {"may_repeat": True, "deny": ITEMS[:2]})
    expected["u5"].remove(ITEMS[3])
    assert lists_of(found, expected) == expected


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "lists"])
def test_every_form_of_a_table(kind, model):
    pairs = {"who": ["u3", "u4", "u3"], "film": [ITEMS[1], ITEMS[2], ITEMS[5]]}
    labels = {"film": [*CATEGORIES], "genre": [labels or None for labels in CATEGORIES.values()]}
    of = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table, "lists": dict}[kind]
    rules = {"user_deny": of(pairs), "allow": of({"film": ITEMS[:20]}), "only_users": of({"who": ["u3", "u4"]})}
    rules |= {"categories": of(labels), "category": "genre", "category_cap": 2}
    if kind == "lists":
        rules |= {"user_deny": {"u3": {ITEMS[1], ITEMS[5]}, "u4": np.array([ITEMS[2]], dtype=object)}}
        rules |= {"allow": pd.Series(ITEMS[:20]), "only_users": {"u3", "u4"}}
        rules |= {"categories": {item: sorted(labels) for item, labels in LABELS.items()}}
    found = model.recommend_for(HISTORIES, 8, user="who", item="film", rules=Rules(**rules))
    plain = {"user_deny": {"u3": [ITEMS[1], ITEMS[5]], "u4": [ITEMS[2]]}, "allow": ITEMS[:20], "category_cap": 2}
    expected = brute_force(model, HISTORIES, 8, plain | {"only_users": ["u3", "u4"]})
    assert lists_of(found, expected) == expected


def test_unknown_ids_are_counted_and_named(model):
    rules = Rules(
        deny=["i1", "x2", "x1"],
        user_allow={"u1": ["i2", "x3"], "u2": ["x4"]},
        only_users=["u1", "u2", "u99"],
        categories={"i1": "a", "x5": "b"},
        category_cap=1,
    )
    with pytest.warns(UnknownIdsWarning) as said:
        found = model.recommend_for(HISTORIES, 5, rules=rules)
    assert lists_of(found, ["u1", "u2"]) == {"u1": ["i2"], "u2": []}  # u2 may have unknown items only
    unknown = {ids.rule: ids for ids in said[0].message.unknown}
    assert unknown == {
        "deny": UnknownIds("deny", 2, 3, ("x1", "x2")),
        "user_allow": UnknownIds("user_allow", 2, 3, ("x3", "x4"), "rows"),
        "only_users": UnknownIds("only_users", 1, 3, ("u99",), "users"),
        "categories": UnknownIds("categories", 1, 2, ("x5",)),
    }
    assert str(unknown["deny"]) == (
        "deny: 2 of 3 items, such as 'x1', 'x2', are unknown to the model; they have no effect."
    )
    assert "2 of 3 rows, such as 'x3', 'x4', are on items unknown to the model" in str(unknown["user_allow"])
    assert "1 of 3 users, such as 'u99', are not in the input" in str(unknown["only_users"])


def test_numbers_match_text_and_unknown_events_still_warn(model):
    random = np.random.default_rng(1)
    rows = sparse.csr_matrix((random.random((30, 10)) < 0.4).astype(np.float32))
    numbered = EASE(l2=5.0).fit(Interactions(rows, np.arange(30), np.arange(10)))
    rules = Rules(deny=["3", "4"], user_deny={"1": ["5"]}, only_users=["1"])
    found = numbered.recommend_for({1: [0, 1], 2: [0]}, 10, rules=rules)
    assert set(found["user"].to_pylist()) == {1}
    assert set(found["item"].to_pylist()) == {2, 6, 7, 8, 9}
    with pytest.warns(UnknownItemsWarning):
        numbered.recommend_for({1: [0, 77]}, 3, rules=rules)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (
            {"deny": {"u1": ["i1"]}},
            InvalidTypeError,
            "deny: Expected items for all users, got a dict",
        ),
        ({"deny": "i1"}, InvalidTypeError, "deny: Expected a list of ids as items, got str 'i1'"),
        ({"deny": ["i1", 2]}, InvalidTypeError, "deny: Expected integers or strings as items, all of one kind"),
        (
            {"allow": pa.table({"user": ["u1"], "item": ["i1"]})},
            InvalidTypeError,
            "allow: Expected items for all users, got a column 'user' too; give it as user_allow",
        ),
        ({"allow": ["x"]}, InvalidParameterError, "allow with at least one item that the model knows"),
        (
            {"allow": pa.table({"film": ["i1"]})},
            InvalidDataError,
            "allow: Expected one column 'item'",
        ),
        ({"user_deny": ["i1"]}, InvalidTypeError, "user_deny: Expected a dict .* items for all users are deny"),
        (
            {"user_deny": {"u1": "i1"}},
            InvalidTypeError,
            "user_deny: Expected a list of ids as the history",
        ),
        ({"only_users": []}, InvalidParameterError, "only_users with at least one user, got none"),
        ({"only_users": "u1"}, InvalidTypeError, "only_users: Expected a list of ids as users, got str 'u1'"),
        ({"category_cap": 2}, InvalidParameterError, "Expected categories for category_cap"),
        ({"mmr": 0.5}, InvalidParameterError, "Expected categories for mmr"),
        ({"categories": CATEGORIES}, InvalidParameterError, "Expected category_cap or mmr with categories"),
        (
            {"categories": CATEGORIES, "category_cap": 0},
            InvalidParameterError,
            "category_cap to be an integer",
        ),
        ({"categories": CATEGORIES, "mmr": 1.5}, InvalidParameterError, "Expected mmr from 0 to 1, got 1.5"),
        ({"categories": CATEGORIES, "mmr": 1, "mmr_pool": 0}, InvalidParameterError, "mmr_pool to be an integer"),
        ({"categories": {"i1": 3}, "category_cap": 1}, InvalidTypeError, "categories: Expected a string or a list"),
        (
            {"categories": pa.table({"item": ["i1"]}), "category_cap": 1},
            InvalidDataError,
            "categories: Expected one column 'category'",
        ),
        ({"new_items": ["i1"]}, InvalidParameterError, "Expected new_items and new_places together"),
        ({"new_places": 2}, InvalidParameterError, "Expected new_items and new_places together"),
        ({"new_items": ["i1"], "new_places": 1.5}, InvalidParameterError, "a share between 0 and 1, got 1.5"),
        ({"new_items": ["i1"], "new_places": 0}, InvalidParameterError, "new_places to be an integer of at least 1"),
    ],
)
def test_what_is_refused(rules, error, message, model):
    with pytest.raises(error, match=message) as raised:
        model.recommend_for(HISTORIES, 3, rules=Rules(**rules))
    assert isinstance(raised.value, RecvaeError)


def test_matrices_of_items_next_to_rules_are_refused(model):
    rules, rows = Rules(deny=["i1"]).resolve(model.known_items()), rows_of(HISTORIES)
    with pytest.raises(InvalidParameterError, match="use user_allow and user_deny"):
        model.ranked_table(np.arange(7), rows, 3, rules=rules, items=rows)


def test_the_digest_is_that_of_what_changes_lists(model):
    index = model.known_items()

    def digest(**rules):
        return Rules(**rules).resolve(index).digest()

    same = [{"deny": ["i1", "i2"]}, {"deny": pa.table({"item": ["i2", "i1", "i1"]})}, {"deny": ["i1", "i2", "unknown"]}]
    assert len({digest(**rules) for rules in same}) == 1
    others = [
        *({}, {"deny": ["i1"]}, {"allow": ["i1"]}, {"may_repeat": True}, {"may_repeat": ["i1"]}),
        *({"user_deny": {"u1": ["i1"]}}, {"user_deny": {"u2": ["i1"]}}, {"user_allow": {"u1": ["i1"]}}),
        *({"only_users": ["u1"]}, {"only_users": ["u2"]}),
        *({"categories": CATEGORIES, "category_cap": cap} for cap in (1, 2)),
        *({"categories": CATEGORIES, "mmr": 0.5, "mmr_pool": pool} for pool in (50, 100)),
        *({"new_items": ["i1"], "new_places": places} for places in (1, 2, 0.5)),
    ]
    assert len({digest(**rules) for rules in [*others, same[0]]}) == len(others) + 1
