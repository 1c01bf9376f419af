import numpy as np
import pytest
from scipy import sparse

from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, OutOfRangeError
from recvae.serving.rerank import cap_categories, category_matrix, mmr

WORST = np.finfo(np.float32).min
LABELS = ["a", "a|b", "", "b", "c", "a|c", "b", "a"]


@pytest.fixture
def lists():
    """40 lists of 12 of 30 items, some of which run out."""
    random = np.random.default_rng(0)
    ids = random.random((40, 30)).argsort(axis=1)[:, :12].astype(np.int32)
    scores = -np.sort(-random.normal(size=(40, 12)).astype(np.float32), axis=1)
    for row, length in enumerate(random.integers(0, 13, 20)):
        ids[row, length:], scores[row, length:] = -1, WORST
    return ids, scores


def plain_cap(ids, labels, cap, N):
    counts, kept = {}, []
    for item in ids:
        mine = [label for label in labels[item].split("|") if label] if item >= 0 else None
        if mine is not None and len(kept) < N and all(counts.get(label, 0) < cap for label in mine):
            kept.append(item)
            counts |= {label: counts.get(label, 0) + 1 for label in mine}
    return kept


def plain_mmr(ids, scores, vectors, N, trade_off):
    left = [(item, score) for item, score in zip(ids.tolist(), scores.tolist(), strict=True) if item >= 0]
    span = max(s for _, s in left) - min(s for _, s in left) if left else 0
    low, taken = min((s for _, s in left), default=0), []

    def cosine(one, other):
        lengths = np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other])
        return vectors[one] @ vectors[other] / lengths if lengths else 0.0

    while left and len(taken) < N:
        worth = [
            trade_off * ((score - low) / span if span else 0)
            - (1 - trade_off) * max((cosine(item, other) for other in taken), default=0)
            for item, score in left
        ]
        taken.append(left.pop(int(np.argmax(worth)))[0])
    return taken


def check_form(found, found_scores, ids, scores, expected, N):
    """Shape, types, padding, and each item's own score."""
    assert (found.dtype, found_scores.dtype) == (np.int32, np.float32)
    assert found.shape == found_scores.shape == (len(ids), N)
    for row, mine in enumerate(expected):
        assert found[row].tolist() == mine + [-1] * (N - len(mine))
        own = dict(zip(ids[row].tolist(), scores[row].tolist(), strict=True))
        assert found_scores[row].tolist() == [own[item] for item in mine] + [WORST] * (N - len(mine))


@pytest.mark.parametrize(("cap", "N"), [(1, 5), (2, 6), (3, 12), (50, 20)])
def test_caps_are_those_of_brute_force(cap, N, lists):
    random = np.random.default_rng(1)
    labels = ["|".join(random.choice(list("abcd"), random.integers(0, 4), replace=False)) for _ in range(30)]
    found = cap_categories(*lists, labels, cap, N)
    check_form(*found, *lists, [plain_cap(row, labels, cap, N) for row in lists[0].tolist()], N)
    for categories in ([label.split("|") if label else [] for label in labels], category_matrix(labels)):
        assert (cap_categories(*lists, categories, cap, N)[0] == found[0]).all()


@pytest.mark.parametrize("trade_off", [0, 0.3, 0.7, 1])
@pytest.mark.parametrize("N", [1, 6, 12, 15])
def test_mmr_is_that_of_brute_force(trade_off, N, lists):
    vectors = np.random.default_rng(2).normal(size=(30, 5))
    vectors[4] = 0
    expected = [plain_mmr(*row, vectors, N, trade_off) for row in zip(*lists, strict=True)]
    check_form(*mmr(*lists, vectors, N, trade_off), *lists, expected, N)


def test_blocks_of_lists_change_nothing(lists, monkeypatch):
    vectors = np.random.default_rng(2).normal(size=(30, 5))
    whole = mmr(*lists, vectors, 5), cap_categories(*lists, LABELS * 4, 1, 5)
    monkeypatch.setattr("recvae.serving.rerank.BLOCK", 150)
    parts = mmr(*lists, vectors, 5), cap_categories(*lists, LABELS * 4, 1, 5)
    for one, other in zip(whole, parts, strict=True):
        assert (one[0] == other[0]).all()


def test_one_list_has_the_form_of_one(lists):
    vectors = np.random.default_rng(2).normal(size=(30, 5))
    for rerank in (lambda *a: mmr(*a, vectors, 4), lambda *a: cap_categories(*a, LABELS * 4, 1, 4)):
        many = rerank(*lists)
        one = rerank(lists[0][25], lists[1][25])
        assert one[0].shape == one[1].shape == (4,)
        assert one[0].tolist() == many[0][25].tolist()
        none = rerank(lists[0][:0], lists[1][:0])
        assert none[0].shape == (0, 4)
        empty = rerank(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
        assert empty[0].tolist() == [-1] * 4


def test_what_each_end_of_the_trade_off_means(lists):
    vectors = np.random.default_rng(2).normal(size=(30, 5))
    assert (mmr(*lists, vectors, 6, 1)[0] == lists[0][:, :6]).all()
    twins = np.eye(2)[[0, 0, 0, 1]]
    ids, _ = mmr([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0], twins, 2, 0)
    assert ids.tolist() == [0, 3]


def test_categories_as_a_matrix():
    matrix = category_matrix(LABELS)
    assert matrix.toarray().astype(int).tolist() == [
        [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0], [1, 0, 0],
    ]  # fmt: skip
    # what is stored twice or as zero is one, or none
    odd = sparse.csr_matrix(([1.0, 1.0, 0.0], [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    assert cap_categories([0, 1], [2.0, 1.0], odd, 1, 2)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], [1.0], LABELS, 1, 2), InvalidDataError, "of one shape"),
        (([0.5], [1.0], LABELS, 1, 2), InvalidTypeError, "integers as ids and floats as scores"),
        (([0], ["a"], LABELS, 1, 2), InvalidTypeError, "integers as ids and floats as scores"),
        (([8], [1.0], LABELS, 1, 2), OutOfRangeError, "Expected items from 0 to 7, or -1 for none, got 8 to 8"),
        (([-2], [1.0], LABELS, 1, 2), OutOfRangeError, "got -2 to -2"),
        (([0], [np.nan], LABELS, 1, 2), InvalidDataError, "finite scores"),
        (([[[0]]], [[[1.0]]], LABELS, 1, 2), InvalidDataError, r"\(L,\) or \(lists, L\)"),
        (([0], [1.0], LABELS, 0, 2), InvalidParameterError, "cap to be an integer of at least 1, got 0"),
        (([0], [1.0], LABELS, 1, 0), InvalidParameterError, "N to be an integer of at least 1, got 0"),
        (([0], [1.0], [1, 2], 1, 1), InvalidTypeError, "as the categories of item 0, got 1"),
        (([0], [1.0], [["a"], [3]], 1, 1), InvalidTypeError, r"as the categories of item 1, got \[3\]"),
    ],
)
def test_what_cap_categories_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        cap_categories(*arguments)


@pytest.mark.parametrize(
    ("vectors", "trade_off", "error", "message"),
    [
        (np.ones(3), 0.5, InvalidTypeError, r"array of numbers \(items, K\), got float64 of shape \(3,\)"),
        ([["a"]], 0.5, InvalidTypeError, "array of numbers"),
        ([[np.nan]], 0.5, InvalidDataError, "finite vectors"),
        ([[1.0]], 1.5, InvalidParameterError, "trade_off from 0 to 1, got 1.5"),
        ([[1.0]], "much", InvalidParameterError, "trade_off from 0 to 1, got 'much'"),
        ([[1.0]], np.nan, InvalidParameterError, "trade_off from 0 to 1, got nan"),
        (np.zeros((0, 2)), 0.5, OutOfRangeError, "Expected items"),
    ],
)
def test_what_mmr_refuses(vectors, trade_off, error, message):
    with pytest.raises(error, match=message):
        mmr([0], [1.0], vectors, 1, trade_off)
