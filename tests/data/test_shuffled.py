import threading
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from recvae.data.batches import DeviceRows
from recvae.data.rows import transform_values
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, NotEnoughMemoryError

pytest.importorskip("duckdb")

from recvae.data.shards import ShuffledRows, write_shards


def shards_of(matrix, folder, users_per_shard, **options):
    cells = matrix.tocoo()
    events = pa.table({"user": cells.row, "item": cells.col, "value": cells.data})
    pq.write_table(events, folder / "events.parquet")
    options = {"value": "value", "show_progress": False} | options
    return write_shards(folder / "events.parquet", folder / "out", users_per_shard=users_per_shard, **options)


@pytest.fixture(scope="module")
def matrix():
    """203 users with values from 1 to 4."""
    matrix = make_sample(203, 60).interactions.matrix.copy()
    matrix.data = np.random.default_rng(0).integers(1, 5, matrix.nnz).astype(np.float32)
    return matrix


@pytest.fixture(scope="module")
def shards(matrix, tmp_path_factory):
    return shards_of(matrix, tmp_path_factory.mktemp("shards"), 10, values="log1p")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """48 users of one event each, four in a shard."""
    return shards_of(sparse.eye(48, format="csr", dtype=np.float32), tmp_path_factory.mktemp("single"), 4)


def windows(rows, key=0):
    return [len(users) for users in rows.order(key)]


def content(batches, n_items):
    """-> rows of the users, and the users"""
    batches = list(batches)
    lengths = torch.cat([batch.offsets.diff() for batch in batches]).numpy()
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    items, values, users = (
        torch.cat([getattr(b, name) for b in batches]).numpy() for name in ("items", "values", "users")
    )
    assert (items.dtype, values.dtype, users.dtype) == (np.int32, np.float32, np.int64)
    for batch in batches:
        assert batch.bounds.tolist() == batch.offsets.tolist()
    return sparse.csr_matrix((values, items, indptr), shape=(len(users), n_items)), users


@pytest.mark.parametrize("window_bytes", [1, 1500, 5000, 1 << 30])
@pytest.mark.parametrize("batch_size", [1, 16, 64, 203, 1000])
def test_a_pass_has_each_user_once_with_the_events_of_the_matrix(window_bytes, batch_size, shards, matrix):
    rows = ShuffledRows(shards, window_bytes=window_bytes, scale=0.5)
    batches = list(rows.batches_of(11, batch_size))
    assert [len(batch) for batch in batches] == [batch_size] * (203 // batch_size) + [203 % batch_size] * (
        203 % batch_size > 0
    )
    found, users = content(batches, 60)
    assert sorted(users) == list(range(203))
    assert users.tolist() == np.concatenate(list(rows.order(11))).tolist()
    expected = transform_values(matrix[users], "log1p") * np.float32(0.5)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_keys_make_the_order(shards):
    rows = ShuffledRows(shards, window_bytes=2000)
    orders = [np.concatenate(list(rows.order(key))).tolist() for key in (0, 1, 2**63, 2**64 - 1)]
    assert len(set(map(tuple, orders))) == 4
    again = ShuffledRows(shards, window_bytes=2000).batches_of(2**63, 7)
    assert content(again, 60)[1].tolist() == orders[2]
    assert len(windows(rows)) > 5
    assert list(range(203)) not in orders
    for key in (-1, 2**64, 1.5):
        with pytest.raises(InvalidParameterError, match="Expected key to be an integer from 0 to"):
            rows.order(key)
    with pytest.raises(InvalidParameterError, match="batch_size to be an integer of at least 1"):
        next(rows.batches_of(1, 0))
    with pytest.raises(InvalidParameterError, match="window_bytes to be an integer of at least 1"):
        ShuffledRows(shards, window_bytes=0)


def test_the_order_is_the_documented_one_and_stays(single):
    """Whatever the version of numpy and the platform."""
    rows = ShuffledRows(single, window_bytes=12 * 8)

    def ranks(n, *key):
        return np.argsort(np.random.Philox(key=np.array(key, np.uint64)).random_raw(n), kind="stable")

    shard_order = ranks(12, 5, 0)
    for number, found in enumerate(rows.order(5)):
        mine = np.concatenate([np.arange(4) + 4 * shard for shard in shard_order[3 * number : 3 * number + 3]])
        assert found.tolist() == mine[ranks(12, 5, number + 1)].tolist()
    assert next(iter(rows.order(5))).tolist() == [10, 43, 40, 41, 37, 9, 11, 42, 8, 36, 38, 39]


def test_every_user_comes_anywhere(single):
    """Over keys, the position of each user is uniform: mean, and chi-square over eight parts of a pass."""
    rows, n_keys = ShuffledRows(single, window_bytes=12 * 8), 600
    orders = np.array([np.concatenate(list(rows.order(key))) for key in range(n_keys)])
    positions = np.argsort(orders, axis=1)  # (keys, users)
    assert np.abs(positions.mean(0) - 23.5).max() < 4.5 * np.sqrt((48**2 - 1) / 12 / n_keys)
    counts = np.array([np.bincount(positions[:, user] // 6, minlength=8) for user in range(48)])
    chi = ((counts - n_keys / 8) ** 2 / (n_keys / 8)).sum(1)  # 7 degrees of freedom each
    assert chi.max() < 30
    assert abs(chi.mean() - 7) < 1.5
    # those of a shard come in one window
    assert (np.ptp(positions.reshape(n_keys, 12, 4) // 12, axis=2) == 0).all()


def test_one_window_is_a_shuffle_of_all(single):
    rows, n_keys = ShuffledRows(single), 3000
    assert windows(rows) == [48]
    orders = np.array([next(rows.order(key)) for key in range(n_keys)])
    # of three users, two of them of one shard, each order as often as each other
    three = np.argsort(np.argsort(orders, axis=1)[:, [0, 1, 47]], axis=1) @ [9, 3, 1]
    counts = np.unique(three, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - n_keys / 6) ** 2 / (n_keys / 6)).sum() < 20.5  # 5 degrees of freedom
    # the user who comes next is of the same shard no more often than by chance
    same = (np.diff(orders // 4, axis=1) == 0).mean()
    assert same == pytest.approx(3 / 47, abs=0.005)


def test_what_training_asks_of_rows(shards, matrix):
    """As `DeviceRows`: rows in a given order, and all at once."""
    rows = ShuffledRows(shards, window_bytes=2000)
    assert len(rows) == 203
    wanted = torch.tensor([4, 0, 202, 4, 77])
    found, users = content(rows.batches(wanted, 2), 60)
    assert users.tolist() == wanted.tolist()
    assert (found != transform_values(matrix, "log1p")[users]).nnz == 0
    assert (content([rows.all()], 60)[0] != transform_values(matrix, "log1p")).nnz == 0


def test_a_pass_goes_on_at_any_batch(shards, matrix):
    """Without reading what is behind it."""
    rows = ShuffledRows(shards, window_bytes=2000)
    whole = [(batch.users.tolist(), batch.items.tolist()) for batch in rows.batches_of(3, 7)]
    for start in (0, 1, 8, 14, len(whole) - 1, len(whole)):
        rest = [(batch.users.tolist(), batch.items.tolist()) for batch in rows.batches_of(3, 7, start)]
        assert rest == whole[start:], start


def test_one_shard_is_read_in_the_order_of_the_matrix(matrix, tmp_path):
    rows = ShuffledRows(shards_of(matrix, tmp_path, 1000))
    in_memory = DeviceRows(transform_values(matrix, "binary"), torch.device("cpu"))
    for one, other in zip(rows.batches_of(5, 50), in_memory.batches_of(5, 50), strict=True):
        assert torch.equal(one.users, other.users)
        assert torch.equal(one.items, other.items)
        assert torch.equal(one.values, other.values)


def test_all_rows_where_they_do_not_fit_is_a_sentence(shards, monkeypatch):
    monkeypatch.setattr("recvae.data.shards.shuffled.BYTES_OF_AN_EVENT", 1 << 50)
    with pytest.raises(NotEnoughMemoryError, match="GiB of memory for all rows of the shards at once"):
        ShuffledRows(shards).all()


def test_a_pass_that_is_left_leaves_nothing_behind(shards):
    before = threading.active_count()
    batches = ShuffledRows(shards, window_bytes=500).batches_of(3, 7)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_damage_that_is_met_in_a_pass_is_said(matrix, tmp_path):
    shards = shards_of(matrix, tmp_path, 50)
    rows = ShuffledRows(shards, window_bytes=1)
    path = tmp_path / "out" / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidDataError, match=r"shard-00002\.arrow is not as it was written"):
        list(rows.batches_of(0, 10))


def test_memory_is_that_of_two_windows(tmp_path):
    """Of 1.6 million events, 13 MB, a pass holds no more than some windows of 0.5 MB."""
    random = np.random.default_rng(0)
    indptr = np.arange(0, 1_600_001, 100)
    items = np.sort(random.integers(0, 500, (16_000, 100)), axis=1).astype(np.int32).ravel()
    matrix = sparse.csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=(16_000, 500))
    matrix.sum_duplicates()
    shards = shards_of(matrix, tmp_path, 200, value=None)
    rows = ShuffledRows(shards, window_bytes=1 << 19)
    tracemalloc.start()
    try:
        seen = sum(len(batch.items) for batch in rows.batches_of(0, 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == matrix.nnz
    assert 2 * (1 << 19) < peak < 5 * (1 << 19) < 8 * matrix.nnz / 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_batches_on_a_gpu(shards):
    here, there = (ShuffledRows(shards, device, window_bytes=2000).batches_of(5, 30) for device in ("cpu", "cuda"))
    for mine, other in zip(here, there, strict=True):
        for name in ("items", "values", "offsets", "users"):
            assert getattr(other, name).device.type == "cuda"
            assert torch.equal(getattr(mine, name), getattr(other, name).cpu())
