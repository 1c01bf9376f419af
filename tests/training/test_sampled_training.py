"""Models that learn by the sampled likelihood, and what decides that they do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import MultVAE, OutputOptions, TrainingOptions
from recvae.data.batches import DeviceRows, Negatives
from recvae.errors import InvalidParameterError
from recvae.nn import nll
from recvae.nn.samplers import SAMPLERS

B, ITEMS, WIDTH = 30, 80, 6


def some_rows(n_users=B, n_items=ITEMS, density=0.15, seed=0):
    rows = sparse.random(n_users, n_items, density, format="csr", random_state=seed, dtype=np.float32)
    rows.data = np.random.default_rng(seed).integers(1, 4, rows.nnz).astype(np.float32)
    return rows


def batch_of(rows):
    return DeviceRows(rows, torch.device("cpu")).all()


def with_negatives(batch, items):
    return replace(batch, negatives=Negatives(torch.as_tensor(items), torch.ones(len(items))))


def layer():
    drawn = torch.Generator().manual_seed(1)
    shapes = ((B, WIDTH), (ITEMS, WIDTH), (ITEMS,))
    return [(0.7 * torch.randn(shape, generator=drawn)).double().requires_grad_() for shape in shapes]


def test_negatives_decide_where_it_is_left_open():
    batch, leaves = batch_of(some_rows()), layer()
    few = with_negatives(batch, [1, 2, 3])
    assert torch.equal(nll(*leaves, few), nll(*leaves, few, impl="sampled"))
    assert torch.equal(nll(*leaves, batch), nll(*leaves, batch, impl="chunked"))


def test_what_cannot_be_sampled_is_said():
    batch, leaves = batch_of(some_rows()), layer()
    with pytest.raises(InvalidParameterError, match="Expected a batch with negatives for a sampled likelihood"):
        nll(*leaves, batch, impl="sampled")
    for family in ("logistic", "gaussian"):
        with pytest.raises(InvalidParameterError, match='Expected the multinomial likelihood for impl="sampled"'):
            nll(*leaves, with_negatives(batch, [0]), family, impl="sampled")
    for settings in ({"likelihood": "logistic"}, {"output": OutputOptions(logits="cosine")}):
        with pytest.raises(InvalidParameterError, match='Expected the multinomial likelihood and logits="dot"'):
            MultVAE(**settings, training=TrainingOptions(impl="sampled")).fit(some_rows())


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("tied", [False, True])
def test_models_learn_by_it(kind, tied):
    rows = some_rows(300, ITEMS, 0.1, seed=4)
    settings = {
        "hidden_dims": (16,),
        "latent_dim": 8,
        "epochs": 5,
        "batch_size": 50,
        "random_state": 0,
        "output": OutputOptions(tied_embeddings=tied),
    }
    settings["training"] = TrainingOptions(impl="sampled", num_negatives=30, sampler=kind, max_grad_norm=5.0)
    model = MultVAE(**settings).fit(rows)
    assert model.history_[-1].nll < model.history_[0].nll
    again = MultVAE(**settings).fit(rows)
    for one, other in zip(model.network_.parameters(), again.network_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_with_all_items_as_negatives_a_step_is_that_of_the_chunked_one():
    """The loss of the first step; later ones differ by the optimizer, which goes row by row."""
    rows = some_rows(300, ITEMS, 0.1, seed=4)
    settings = {"epochs": 1, "batch_size": 300, "random_state": 0}
    losses = [
        MultVAE(
            **settings,
            output=OutputOptions(item_biases="normal"),
            training=TrainingOptions(impl=impl, num_negatives=ITEMS, precision="float32"),
        )
        .fit(rows)
        .history_[0]
        .loss
        for impl in ("chunked", "sampled")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
