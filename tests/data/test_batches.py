import numpy as np
import torch
from scipy import sparse

from recvae.data.batches import DeviceRows

# user 4 has no events
MATRIX = sparse.diags_array((np.arange(23) != 4) * 1.0) @ sparse.random(23, 11, 0.3, format="csr", random_state=0)
MATRIX = sparse.csr_matrix(MATRIX, dtype=np.float32)


def dense(batch):
    rows = torch.zeros(len(batch), MATRIX.shape[1])
    rows[batch.rows, batch.items] = batch.values
    return rows.numpy()


def test_gathered_rows_are_the_rows_of_the_matrix():
    rows = DeviceRows(MATRIX, torch.device("cpu"))
    wanted = torch.tensor([4, 0, 22, 4, 7])
    assert (dense(next(rows.batches(wanted, len(wanted)))) == MATRIX[wanted.numpy()].toarray()).all()
    assert (dense(rows.all()) == MATRIX.toarray()).all()


def test_an_epoch_has_each_row_once_and_keeps_the_last_batch():
    rows = DeviceRows(MATRIX, torch.device("cpu"))
    batches = list(rows.batches_of(0, 5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    seen = np.vstack([dense(batch) for batch in batches])
    assert sorted(map(tuple, seen)) == sorted(map(tuple, MATRIX.toarray()))
    assert not (seen == MATRIX.toarray()).all()
    rest = list(rows.batches_of(0, 5, start=3))
    assert [batch.users.tolist() for batch in rest] == [batch.users.tolist() for batch in batches[3:]]
    assert [batch.users.tolist() for batch in rows.batches_of(1, 5)] != [batch.users.tolist() for batch in batches]


def test_sums_by_user():
    batch = DeviceRows(MATRIX, torch.device("cpu")).all()
    np.testing.assert_allclose(batch.sum(batch.values).numpy(), MATRIX.sum(1).A1, rtol=1e-6)
