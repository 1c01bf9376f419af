import copy

import numpy as np
import pytest
import torch

from recvae.errors import InvalidParameterError, InvalidTypeError
from recvae.nn.optim import AdamW, RowwiseAdam, clip_grad_norm_, coalesced_rows
from recvae.utils.sparse_products import row_sparse

N = 50


class ByHand:
    """The same in numpy, on all rows."""

    def __init__(self, table, lr, beta, eps, weight_decay):
        self.table, self.lr, self.beta, self.eps, self.decay = table.copy(), lr, beta, eps, weight_decay
        self.second, self.steps = np.zeros(len(table)), 0

    def step(self, grad, touched):
        self.steps += 1
        self.second = self.beta * self.second + (1 - self.beta) * (grad**2).reshape(len(grad), -1).mean(1)
        rate = self.lr / (np.sqrt(self.second / (1 - self.beta**self.steps)) + self.eps)
        self.table[touched] *= 1 - self.lr * self.decay
        self.table -= rate.reshape(-1, *[1] * (grad.ndim - 1)) * grad


def parameter(shape=(N, 4), seed=0, dtype=torch.float64):
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def gradient(random, shape, n_rows=20, dtype=torch.float64, distinct=True):
    rows = (
        np.sort(random.choice(shape[0], n_rows, replace=False)) if distinct else random.integers(shape[0], size=n_rows)
    )
    values = torch.from_numpy(random.normal(size=(n_rows, *shape[1:]))).to(dtype)
    if distinct:
        return row_sparse(torch.from_numpy(rows), values, shape)
    return torch.sparse_coo_tensor(torch.from_numpy(rows)[None], values, shape, check_invariants=True)


@pytest.mark.parametrize("beta", [0.999, 0.5, 0.05, 1e-10])  # the last two write second moments again on the way
@pytest.mark.parametrize("shape", [(N, 4), (N,), (N, 2, 3)])
@pytest.mark.parametrize("distinct", [True, False])
def test_an_update_is_that_of_the_formula_on_all_rows(beta, shape, distinct):
    table, random = parameter(shape), np.random.default_rng(0)
    settings = {"lr": 0.1, "beta": beta, "eps": 1e-6, "weight_decay": 0.05}
    expected, optimizer = ByHand(table.detach().numpy(), **settings), RowwiseAdam([table], **settings)
    for _ in range(12):
        table.grad = gradient(random, shape, n_rows=5, distinct=distinct)
        expected.step(table.grad.to_dense().numpy(), np.unique(table.grad._indices()[0]))
        optimizer.step()
    np.testing.assert_allclose(table.detach().numpy(), expected.table, rtol=1e-10)
    assert {name: kept.shape for name, kept in optimizer.state[table].items()} == {"step": (), "second": (N,)}


def test_blocks_make_no_difference(monkeypatch):
    tables = []
    for block in (1, 1 << 20):
        monkeypatch.setattr("recvae.nn.optim.BLOCK", block)
        table = parameter()
        table.grad = gradient(np.random.default_rng(0), table.shape)
        RowwiseAdam([table]).step()
        tables.append(table.detach())
    assert torch.equal(*tables)


def test_other_rows_are_left_alone():
    table, random = parameter(), np.random.default_rng(0)
    optimizer = RowwiseAdam([table], weight_decay=0.1)
    table.grad = torch.randn(N, 4, dtype=torch.float64)
    optimizer.step()
    before, state = table.detach().clone(), copy.deepcopy(optimizer.state[table])
    table.grad = gradient(random, table.shape)
    optimizer.step()
    others = np.setdiff1d(np.arange(N), table.grad._indices()[0].numpy())
    touched = table.grad._indices()[0]
    assert torch.equal(table[others], before[others])
    assert (table[touched] != before[touched]).all()
    kept = optimizer.state[table]["second"]
    assert torch.equal(kept[others], state["second"][others])
    assert (kept[touched] != state["second"][touched]).all()


def test_steps_on_sparse_gradients_are_those_on_dense_ones():
    one, other = parameter(), parameter()
    optimizers, random = [RowwiseAdam([table], lr=0.1) for table in (one, other)], np.random.default_rng(0)
    for _ in range(10):
        one.grad = gradient(random, (N, 4), n_rows=3)
        other.grad = one.grad.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_second_moments_stay_numbers_however_long_a_row_is_left_alone():
    table, random = parameter(dtype=torch.float32), np.random.default_rng(0)
    optimizer = RowwiseAdam([table], lr=0.1, beta=0.9)
    expected = ByHand(table.detach().numpy().astype(float), 0.1, 0.9, 1e-8, 0)
    empty = row_sparse(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (N, 4))
    for step in range(2000):  # ten times as many as a unit has
        table.grad = gradient(random, (N, 4), dtype=torch.float32) if step % 400 < 3 else empty
        expected.step(table.grad.to_dense().double().numpy(), np.unique(table.grad._indices()[0]))
        optimizer.step()
    second = optimizer.state[table]["second"]
    assert second.isfinite().all()
    np.testing.assert_allclose(table.detach().numpy(), expected.table, rtol=1e-4, atol=1e-5)


def test_on_a_vector_it_is_adam_without_a_first_moment():
    one, other, random = parameter((N,)), parameter((N,)), np.random.default_rng(0)
    optimizers = [RowwiseAdam([one], lr=0.01), torch.optim.Adam([other], lr=0.01, betas=(0.0, 0.999))]
    for _ in range(10):
        one.grad = gradient(random, (N,))
        other.grad = one.grad.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [0.999, 0.01])  # the second writes second moments again on the way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_comes_back_exactly(dtype, beta, tmp_path):
    def train(optimizer, table, seeds):
        for seed in seeds:
            table.grad = gradient(np.random.default_rng(seed), table.shape, dtype=dtype)
            optimizer.step()

    whole, parts = parameter(dtype=dtype), parameter(dtype=dtype)
    train(RowwiseAdam([whole], lr=0.1, beta=beta), whole, range(6))
    first = RowwiseAdam([parts], lr=0.1, beta=beta)
    train(first, parts, range(3))
    torch.save(first.state_dict(), tmp_path / "state")
    second = RowwiseAdam([parts])
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert second.state[parts]["step"] == 3
    train(second, parts, range(3, 6))
    assert torch.equal(whole, parts)


def test_no_gradient_and_no_rows_are_no_update():
    table, still = parameter(), parameter()
    optimizer = RowwiseAdam([table, still])
    before = table.detach().clone()
    table.grad = row_sparse(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.float64), (N, 4))
    optimizer.step()
    assert torch.equal(table, before)
    assert optimizer.step(lambda: 3.0) == 3.0


def test_the_rate_may_change_on_the_way_as_schedulers_change_it():
    table = parameter()
    optimizer = RowwiseAdam([{"params": [table], "lr": 0.1}])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.0)
    table.grad = gradient(np.random.default_rng(0), table.shape)
    optimizer.step()
    scheduler.step()
    before = table.detach().clone()
    optimizer.step()
    assert torch.equal(table, before)


def test_bad_settings_are_a_sentence():
    for wrong in ({"lr": -1.0}, {"weight_decay": float("nan")}, {"eps": float("inf")}):
        with pytest.raises(InvalidParameterError, match=f"Expected {next(iter(wrong))} of 0 or more, got"):
            RowwiseAdam([parameter()], **wrong)
    for beta in (0.0, 1.0):
        with pytest.raises(InvalidParameterError, match="Expected a beta between 0 and 1, got"):
            RowwiseAdam([parameter()], beta=beta)
    with pytest.raises(InvalidParameterError, match="Expected parameters that have rows, got one that is a single"):
        RowwiseAdam([parameter(())])
    table = parameter()
    table.grad = table.detach().to_sparse()
    with pytest.raises(InvalidTypeError, match="Expected a gradient that is sparse over rows, got 2 sparse dimensions"):
        RowwiseAdam([table]).step()


# gradients of which some are sparse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(N, 4), (N,), (N, 2, 3)])
def test_rows_that_meet_are_summed(shape):
    grad = gradient(np.random.default_rng(0), shape, 80, distinct=False)
    rows, values = coalesced_rows(grad)
    assert (rows.diff() > 0).all()
    torch.testing.assert_close(row_sparse(rows, values, shape).to_dense(), grad.to_dense())


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_that_of_torch(max_norm):
    random = np.random.default_rng(0)
    tables = [parameter(), parameter((N,)), parameter((3, 3)), parameter()]
    tables[0].grad = gradient(random, (N, 4), 80, distinct=False)
    tables[1].grad = gradient(random, (N,))
    tables[2].grad = torch.randn(3, 3, dtype=torch.float64)
    dense = [torch.nn.Parameter(table.detach()) for table in tables]
    for one, table in zip(dense[:3], tables, strict=False):
        one.grad = table.grad.to_dense().clone()
    norm = clip_grad_norm_(iter(tables), max_norm)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(dense, max_norm))
    for one, table in zip(dense[:3], tables, strict=False):
        torch.testing.assert_close(table.grad.to_dense(), one.grad)
    assert tables[0].grad.is_sparse
    assert clip_grad_norm_([parameter()], 1.0) == 0


def test_adamw_in_blocks_is_that_of_torch(monkeypatch):
    """Up to rounding, and each takes up the state of the other: tables of many blocks, vectors, a single number."""
    monkeypatch.setattr("recvae.nn.optim.BLOCK", 7)
    random, shapes = torch.Generator().manual_seed(1), [(N, 4), (3, 2), (N,), (), (N, 2, 3)]
    sets = [[parameter(shape, seed, torch.float32) for seed, shape in enumerate(shapes)] for _ in range(2)]
    optimizers = [AdamW(sets[0], 0.01, 0.1), torch.optim.AdamW(sets[1], 0.01, weight_decay=0.1, fused=True)]
    for step in range(8):
        for number, tables in enumerate(zip(*sets, strict=True)):
            grad = torch.randn(shapes[number], generator=random)
            for table in tables:
                table.grad = None if number == step % 3 else grad.clone()  # one has none in this step
        for optimizer in optimizers:
            optimizer.step()
        if step == 4:
            states = [optimizer.state_dict() for optimizer in optimizers]
            for optimizer, state in zip(optimizers, reversed(states), strict=True):
                optimizer.load_state_dict(copy.deepcopy(state))
    for ours, theirs in zip(*sets, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(optimizers[0].state[ours], optimizers[1].state[theirs], rtol=1e-5, atol=1e-6)
