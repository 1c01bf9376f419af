import numpy as np
import pytest

from benchmarks.synthetic import synthetic


@pytest.mark.parametrize("shape", [(300, 200, 6000), (50, 40, 400), (20, 12, 20)])
def test_there_are_just_as_many_events_each_once(shape):
    matrix = synthetic(*shape)
    assert (*matrix.shape, matrix.nnz) == shape
    assert matrix.has_canonical_format
    assert (matrix.data == 1).all()
    assert np.diff(matrix.indptr).min() >= 1
    assert np.diff(matrix.indptr).max() <= shape[1] // 4


def test_more_events_than_can_be():
    with pytest.raises(ValueError, match="Expected 20 to 60 events, one to 3 of a user, got 61"):
        synthetic(20, 12, 61)


def test_few_users_and_few_items_have_most():
    matrix = synthetic(2000, 1000, 40_000)
    users, items = np.sort(np.diff(matrix.indptr)), np.sort(np.bincount(matrix.indices, minlength=1000))
    assert users[-200:].sum() > 0.3 * 40_000  # a tenth of them
    assert items[-100:].sum() > 0.3 * 40_000


def test_the_seed_decides():
    one, two, other = (synthetic(50, 40, 400, seed) for seed in (1, 1, 2))
    assert (one != two).nnz == 0
    assert (one != other).nnz > 0
