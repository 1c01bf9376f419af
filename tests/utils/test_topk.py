import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from recvae.errors import InvalidDataError
from recvae.utils.topk import PAD_SCORE, Allowed, rank, top_k

# few values, so that ties are the rule
SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.integers(-2, 2).map(float)
)


@given(SCORES, st.integers(1, 15))
def test_top_k_equals_sorting_by_score_and_then_by_id(scores, k):
    ids, values = top_k(torch.from_numpy(scores.copy()), k)
    expected = np.array([sorted(range(scores.shape[1]), key=lambda i: (-row[i], i))[:k] for row in scores])
    assert ids.tolist() == expected.tolist()
    assert values.tolist() == np.take_along_axis(scores, expected, 1).tolist()


@given(SCORES, st.integers(1, 15), st.data())
def test_rank_equals_brute_force(scores, N, data):
    seen = data.draw(hnp.arrays(bool, scores.shape))
    allowed = data.draw(st.none() | hnp.arrays(bool, scores.shape[1]))
    filter_seen = data.draw(st.booleans())
    rows = sparse.csr_matrix(seen.astype(np.float32))
    block_bytes = data.draw(st.sampled_from([1, 100, 1 << 20]))

    def score(block, places):
        assert block.shape[0] == len(scores[places])
        return torch.from_numpy(scores[places].copy())

    ids, values = rank(score, rows, N, filter_seen=filter_seen, allowed=Allowed(allowed), block_bytes=block_bytes)
    assert ids.shape == values.shape == (len(scores), N)
    assert (ids.dtype, values.dtype) == (np.int32, np.float32)
    for user, row in enumerate(scores):
        free = [
            item
            for item in range(len(row))
            if not (filter_seen and seen[user, item]) and (allowed is None or allowed[item])
        ]
        best = sorted(free, key=lambda i: (-row[i], i))[:N]
        assert ids[user].tolist() == best + [-1] * (N - len(best))
        assert values[user].tolist() == [row[i] for i in best] + [PAD_SCORE] * (N - len(best))


def test_large_rows_with_ties_at_the_border():
    random = np.random.default_rng(0)
    scores = random.integers(0, 50, (20, 5000)).astype(np.float32)
    ids, _ = top_k(torch.from_numpy(scores), 100)
    expected = np.lexsort((np.broadcast_to(np.arange(5000), scores.shape), -scores))[:, :100]
    assert ids.tolist() == expected.tolist()


def test_a_row_of_equal_scores_among_others():
    random = np.random.default_rng(0)
    scores = random.normal(size=(6, 3000)).astype(np.float32)
    scores[2], scores[4, 100:] = 0, -5
    ids, values = top_k(torch.from_numpy(scores.copy()), 7)
    expected = np.lexsort((np.broadcast_to(np.arange(3000), scores.shape), -scores))[:, :7]
    assert ids.tolist() == expected.tolist()
    assert values.tolist() == np.take_along_axis(scores, expected, 1).tolist()


def test_zero_of_either_sign_is_one_score_in_bfloat16():
    ids, _ = top_k(torch.tensor([[-0.0, 0.0, -1.0, 0.0, -0.0]]).bfloat16(), 3)
    assert ids.tolist() == [[0, 1, 3]]


def test_nothing_asked_for_and_nothing_there():
    assert top_k(torch.zeros(2, 5), 0)[0].shape == (2, 0)
    assert top_k(torch.zeros(2, 0), 3)[0].shape == (2, 0)


def test_scores_need_not_lie_in_the_order_of_rows():
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows = sparse.csr_matrix(np.eye(4, 3, dtype=np.float32))
    ids, _ = rank(lambda block, places: torch.from_numpy(scores).T[places], rows, 1)
    assert ids[:, 0].tolist() == [2, 2, 1, 2]


def test_nan_never_becomes_a_recommendation():
    with pytest.raises(InvalidDataError, match="got NaN"):
        top_k(torch.tensor([[1.0, float("nan"), 0.0]]), 2)


def test_scores_that_are_minus_infinity_are_not_given():
    ids, values = rank(lambda *_: torch.tensor([[1.0, -torch.inf]]), sparse.csr_matrix((1, 2)), 2)
    assert ids.tolist() == [[0, -1]]
    assert values.tolist() == [[1.0, PAD_SCORE]]
