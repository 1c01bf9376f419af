import numpy as np
import pytest
import torch
from scipy import sparse, stats

from recvae.data.batches import DeviceRows
from recvae.nn.rng import CounterRNG, fold_in, initialize, initialize_rows

ROWS = DeviceRows(sparse.random(300, 50, 0.4, format="csr", random_state=0, dtype=np.float32), torch.device("cpu"))


def test_normal_numbers_are_normal_and_of_no_user_like_those_of_another():
    drawn = CounterRNG(3, torch.arange(5000)).normal(40)
    assert stats.kstest(drawn.flatten().numpy()[:100_000], "norm").pvalue > 1e-4
    assert abs(stats.kurtosis(drawn.numpy(), axis=None)) < 0.05
    between_columns = np.corrcoef(drawn.T.numpy()) - np.eye(40)
    assert np.abs(between_columns).max() < 4.5 / np.sqrt(5000)
    between_users = (drawn[:-1] * drawn[1:]).mean()  # of neighbouring numbers
    assert abs(between_users) < 4.5 / np.sqrt(drawn.numel())


def test_an_odd_width_is_a_part_of_an_even_one():
    assert CounterRNG(1, torch.arange(4)).normal(3).shape == (4, 3)
    assert CounterRNG(1, torch.arange(4)).normal(1).shape == (4, 1)


def test_a_draw_follows_from_key_user_and_its_number_alone():
    users = torch.tensor([7, 3, 250])
    (some,), whole = ROWS.batches(users, 3), ROWS.all()
    one, other = CounterRNG.for_batch(5, some), CounterRNG.for_batch(5, whole)
    for _ in range(2):
        torch.testing.assert_close(one.normal(6), other.normal(6)[users])
        kept = other.keep_mask(whole, 0.5)
        mine = torch.cat([kept[whole.events(slice(user, user + 1))] for user in users.tolist()])
        assert torch.equal(one.keep_mask(some, 0.5), mine)
    assert not torch.equal(CounterRNG.for_batch(5, some).normal(6), one.normal(6))  # the next draw is another
    assert not torch.equal(CounterRNG.for_batch(5, some).normal(6), CounterRNG.for_batch(6, some).normal(6))


def test_a_draw_in_pieces_is_that_of_all_users_and_is_used_up():
    batch, whole, cut = ROWS.all(), CounterRNG.for_batch(5, ROWS.all()), CounterRNG.for_batch(5, ROWS.all())
    draw, pieces = cut.next_draw(), [slice(0, 90), slice(90, 300)]
    masks = [draw.of(rows).keep_mask(batch.part(rows), 0.5) for rows in pieces]
    assert torch.equal(torch.cat(masks), whole.keep_mask(batch, 0.5))
    assert torch.equal(cut.normal(6), whole.normal(6))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_events_are_dropped_one_by_one(rate):
    batch = ROWS.all()
    kept = torch.stack([CounterRNG.for_batch(key, batch).keep_mask(batch, rate) for key in range(400)])
    error = np.sqrt(rate * (1 - rate) / 400)
    assert (kept.mean(0) - (1 - rate)).abs().max() < 5 * error
    of_pairs = ((kept[:, 1:] - 1 + rate) * (kept[:, :-1] - 1 + rate)).mean()
    assert abs(of_pairs) < 4.5 * rate * (1 - rate) / np.sqrt(kept.numel())


def test_items_are_as_they_were():
    batch = next(ROWS.batches(torch.arange(4), 4))
    items = batch.items.clone().long()
    before = items.clone()
    CounterRNG.for_batch(0, batch).keep_mask(type(batch)(items, batch.values, batch.offsets), 0.5)
    assert torch.equal(items, before)


def test_the_numbers_stay_those_of_today():
    """On any machine: what is recorded and what is resumed depend on them."""
    assert fold_in(1, 2, 3) == 0xD0734750FDE362B3
    drawn = CounterRNG(1, torch.arange(2)).normal(2)
    torch.testing.assert_close(drawn, torch.tensor([[-0.0985, 0.3214], [-0.0984, 0.1548]]), atol=1e-4, rtol=0)
    assert fold_in(1, 2) != fold_in(2, 1) != fold_in(1)
    assert 0 <= fold_in(2**64 - 1, 5) < 2**64


def test_rows_of_a_parameter_begin_alike_wherever_they_are():
    table = torch.nn.Embedding(10_000, 7)
    initialize(table, 3)
    for start, stop in ((0, 10), (4090, 4100), (8191, 10_000), (5, 9999)):
        part = torch.empty(stop - start, 7)
        initialize_rows(part, 3, "weight", (10_000, 7), start)
        assert torch.equal(part, table.weight[start:stop])
    assert table.weight.abs().max() <= np.sqrt(6 / 10_007)
    assert table.weight.std().item() == pytest.approx(np.sqrt(6 / 10_007 / 3), rel=0.02)
    again = torch.nn.Embedding(10_000, 7)
    initialize(again, 4)
    assert not torch.equal(again.weight, table.weight)
