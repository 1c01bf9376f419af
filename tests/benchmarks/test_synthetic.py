import numpy as np
import pyarrow.parquet
import pytest

from benchmarks.scale.bulk import write_drawn
from benchmarks.speed.synthetic import synthetic
from recvae import Interactions
from recvae.datasets.sample import make_sample


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


def test_drawn_users_have_a_part_of_what_a_real_one_has(tmp_path):
    real = make_sample(50, 40).interactions
    sizes = write_drawn(tmp_path / "drawn.parquet", real, 300)
    table = pyarrow.parquet.read_table(tmp_path / "drawn.parquet")
    drawn = Interactions.from_frame(table)
    assert (drawn.n_users, drawn.n_events) == (sizes["users"], sizes["events"]) == (300, len(table))
    assert (np.diff(table["user"].to_numpy()) != 0).mean() > 0.9  # in no order of users
    histories = [set(real.item_ids[row.indices].tolist()) for row in real.matrix]
    lists = [set(drawn.item_ids[row.indices].tolist()) for row in drawn.matrix]
    assert all(any(mine <= history for history in histories) for mine in lists)
    assert 0.6 < np.mean([len(mine) for mine in lists]) / np.mean([len(history) for history in histories]) < 0.9
