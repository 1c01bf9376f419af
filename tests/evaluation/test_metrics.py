import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError
from recvae.evaluation.metrics import METRICS, coverage, find_hits, gini, novelty, times_listed
from recvae.evaluation.names import METRIC_NAMES, parse_metric


def by_hand(name, ranked, held, k):
    """Each metric in the words of its definition, for one user."""
    listed = [item for item in ranked[:k] if item >= 0]
    hits = [item in held for item in listed]
    if name == "recall":
        return sum(hits) / min(k, len(held))
    if name == "recall_full":
        return sum(hits) / len(held)
    if name == "precision":
        return sum(hits) / k
    if name == "hit_rate":
        return float(any(hits))
    if name == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "map":
        precisions = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1) if hit]
        return sum(precisions) / min(k, len(held))
    gains = sum(1 / math.log2(1 + rank) for rank, hit in enumerate(hits, 1) if hit)
    return gains / sum(1 / math.log2(1 + place) for place in range(1, min(k, len(held)) + 1))


@st.composite
def rankings(draw):
    """Ranked lists of a few users, some cut short, and their held-out items."""
    n_items = draw(st.integers(1, 12))
    users = draw(st.integers(1, 5))
    width = draw(st.integers(1, n_items))
    lists, held = [], []
    for _ in range(users):
        order = draw(st.permutations(range(n_items)))
        length = draw(st.integers(0, width))
        lists.append([*order[:length], *[-1] * (width - length)])
        held.append(draw(st.sets(st.integers(0, n_items - 1), min_size=1)))
    return np.array(lists), held, n_items


def matrix(held, n_items):
    dense = np.zeros((len(held), n_items), dtype=np.float32)
    for row, items in enumerate(held):
        dense[row, sorted(items)] = 1
    return sparse.csr_matrix(dense)


def measure(name, ranked, held, n_items, k):
    hits = find_hits(ranked, matrix(held, n_items))
    return METRICS[name](hits[:, :k], np.array([len(items) for items in held]), k)


def test_each_metric_has_a_name_and_a_function():
    assert tuple(METRICS) == METRIC_NAMES


@pytest.mark.parametrize("name", METRICS)
@given(case=rankings(), k=st.integers(1, 20))
def test_metrics_equal_their_definitions(name, case, k):
    ranked, held, n_items = case
    expected = [by_hand(name, row.tolist(), items, k) for row, items in zip(ranked, held, strict=True)]
    np.testing.assert_allclose(measure(name, ranked, held, n_items, k), expected, rtol=0, atol=1e-9)


# where the definitions agree; torchmetrics divides its average precision by the hits found, and so is not here
AGREE = {
    "recall_full": "retrieval_recall",
    "precision": "retrieval_precision",
    "hit_rate": "retrieval_hit_rate",
    "mrr": "retrieval_reciprocal_rank",
    "ndcg": "retrieval_normalized_dcg",
}


@pytest.mark.parametrize("name", AGREE)
def test_metrics_equal_torchmetrics(name):
    from torchmetrics.functional import retrieval  # takes two seconds, which other workers need not wait

    reference = getattr(retrieval, AGREE[name])
    random = np.random.default_rng(0)
    for k in (1, 5, 20, 30):
        ranked = np.array([random.permutation(30) for _ in range(20)])
        held = [set(random.choice(30, random.integers(1, 12), replace=False).tolist()) for _ in range(20)]
        ours = measure(name, ranked, held, 30, k)
        for value, row, items in zip(ours, ranked, held, strict=True):
            scores = torch.empty(30, dtype=torch.float64)
            scores[torch.from_numpy(row)] = torch.arange(30, 0, -1, dtype=torch.float64)
            target = torch.tensor([item in items for item in range(30)])
            assert value == pytest.approx(float(reference(scores, target, top_k=k)), abs=1e-6)


@pytest.mark.parametrize("n_held", [1, 2, 3, 7, 21, 50, 99, 100, 101, 300])
def test_a_perfect_list_has_exactly_one_and_none_has_more(n_held):
    perfect = np.arange(300)[None]
    for k in (1, 10, 20, 21, 50, 100, 299):
        for name in METRICS:
            if name in ("recall_full", "precision"):
                continue
            assert measure(name, perfect[:, :k], [set(range(n_held))], 300, k) == [1.0], (name, k)
    random = np.random.default_rng(n_held)
    lists = np.array([random.permutation(300)[:100] for _ in range(40)])
    held = [set(row[: n_held - 1].tolist()) | {299} for row in lists]  # nearly perfect
    for name in METRICS:
        assert measure(name, lists, held, 300, 100).max() <= 1


def test_held_out_items_may_come_in_any_order():
    random = np.random.default_rng(0)
    ranked = np.array([random.permutation(30)[:10] for _ in range(20)])
    ordered = sparse.random(20, 30, 0.3, format="csr", random_state=0)
    mixed = ordered.copy()
    for start, stop in itertools.pairwise(mixed.indptr):
        mixed.indices[start:stop] = random.permutation(mixed.indices[start:stop])
    assert (find_hits(ranked, mixed) == find_hits(ranked, ordered)).all()


def test_the_two_recalls_differ_where_more_is_held_out_than_listed():
    ranked, held = np.arange(5)[None], [set(range(10))]
    assert measure("recall", ranked, held, 10, 5) == [1.0]
    assert measure("recall_full", ranked, held, 10, 5) == [0.5]


def test_padding_is_never_a_hit():
    assert not find_hits(np.full((2, 3), -1), matrix([{0}, {9}], 10)).any()


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([[0, 0]], "at most once"),
        ([[0, 7]], "below 5, the number of items, got 7"),
        ([[0], [1]], "Expected 1 ranked"),
        ([[0.5]], "integers"),
        ([0], "Expected 1 ranked"),
    ],
)
def test_lists_that_cannot_be_are_refused(ranked, message):
    with pytest.raises(InvalidDataError, match=message):
        find_hits(np.array(ranked), matrix([{0}], 5))


def test_names_of_metrics():
    assert parse_metric("recall_full@20") == ("recall_full", 20)
    with pytest.raises(UnknownNameError, match="no metric called 'ndgc'; did you mean ndcg"):
        parse_metric("ndgc@10")
    for name in ("ndcg", "ndcg@", "ndcg@ten", "ndcg@²"):
        with pytest.raises(InvalidParameterError, match="such as ndcg@20"):
            parse_metric(name)
    for name in ("ndcg@0", "ndcg@-3"):
        with pytest.raises(InvalidParameterError, match="k of at least 1"):
            parse_metric(name)


def test_list_level_measures():
    same, different, none = (times_listed(np.array(lists), 4) for lists in ([[0]] * 4, [[0, 1, 2, 3]], [[-1]]))
    assert (coverage(same), coverage(different), coverage(none)) == (0.25, 1, 0)
    assert gini(different) == pytest.approx(0)
    assert gini(same) == pytest.approx(0.75)  # (n - 1) / n, the most there is
    counts = np.array([8, 4, 1, 0])
    assert novelty(same, counts, 8) == 0
    assert novelty(times_listed(np.array([[1, 2, -1]]), 4), counts, 8) == pytest.approx((1 + 3) / 2)
    assert np.isnan(novelty(none, counts, 8))
    assert np.isnan(gini(none))
