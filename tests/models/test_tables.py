"""One table for both ends: in training, in files, in copies, and when items are added."""

import copy
import io
import pickle

import numpy as np
import pytest
import safetensors
import torch
from scipy import sparse

from recvae import HVamp, HybridVAE, MultDAE, MultVAE, OutputOptions, RecVAE, TrainingOptions, load
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.models.autoencoder.network import INPUT, OUTPUT, are_tied, tied_vectors
from recvae.models.base.params import with_params
from recvae.nn.item_vectors import ItemVectors, item_vectors
from recvae.training.state import Phase

ITEMS = 30
ROWS = sparse.random(120, ITEMS, 0.2, format="csr", random_state=0, dtype=np.float32)
ROWS.data[:] = 1
TIED = OutputOptions(tied_embeddings=True)
SMALL = {"epochs": 3, "batch_size": 30, "random_state": 0, "output": TIED}
MODELS = {
    "MultVAE": MultVAE(hidden_dims=(6,), latent_dim=4, **SMALL),
    "MultVAE-sampled": MultVAE(
        hidden_dims=(6,), latent_dim=4, **SMALL, training=TrainingOptions(impl="sampled", num_negatives=10)
    ),
    "MultVAE-cosine": MultVAE(
        hidden_dims=(6,), latent_dim=4, **SMALL | {"output": OutputOptions(tied_embeddings=True, logits="cosine")}
    ),
    "MultDAE": MultDAE(latent_dim=5, **SMALL),
    "RecVAE": RecVAE(hidden_dim=6, latent_dim=6, depth=2, **SMALL),
    "HybridVAE": HybridVAE(hidden_dim=6, latent_dim=6, depth=2, l2=10.0, **SMALL),
}
FEATURES = sparse.csr_matrix(np.random.default_rng(0).random((ITEMS + 4, 3)))


@pytest.fixture(scope="module")
def fitted():
    models = {name: model.fit(ROWS, show_progress=False) for name, model in MODELS.items()}
    return lambda name: copy.deepcopy(models[name])


@pytest.fixture(params=MODELS)
def model(request, fitted):
    return fitted(request.param)


def scores(model):
    return model.score(ROWS[:20])


def test_training_keeps_them_one(model):
    assert are_tied(model.network_)
    names = [name for name, _ in model.network_.named_parameters()]
    assert INPUT in names
    assert OUTPUT not in names


def test_a_file_has_the_table_once(model, tmp_path):
    model.save(tmp_path / "model")
    with safetensors.safe_open(tmp_path / "model", "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    tables = [name for name, shape in shapes.items() if shape == (ITEMS, model.network_.decoder.weight.shape[1])]
    # these data are thin: a HybridVAE has a second network, with a table of its own
    assert tables == ([OUTPUT, f"second.{OUTPUT}"] if isinstance(model, HybridVAE) else [OUTPUT])
    again = load(tmp_path / "model")
    assert are_tied(again.network_)
    assert np.array_equal(scores(again), scores(model))
    once_more = load(io.BytesIO(saved(again)))
    assert are_tied(once_more.network_)
    assert np.array_equal(scores(once_more), scores(model))


def test_a_file_without_the_table_is_refused(model):
    tensors = model._tensors()
    del tensors[OUTPUT]
    with pytest.raises((InvalidDataError, KeyError, ValueError)):
        model._restore(tensors, ITEMS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_of_one_table_too(copied, model):
    other = copied(model)
    assert are_tied(other.network_)
    assert other.network_.decoder.weight is not model.network_.decoder.weight
    assert np.array_equal(scores(other), scores(model))
    other.partial_fit(ROWS, epochs=1, show_progress=False)
    assert are_tied(other.network_)


def test_new_items_have_one_vector(model):
    before = scores(model)
    model.add_items(FEATURES)
    assert are_tied(model.network_)
    assert model.network_.decoder.weight.shape[0] == ITEMS + 4
    np.testing.assert_allclose(model.score(widened(ROWS[:20], 4))[:, :ITEMS], before, rtol=1e-4, atol=1e-5)
    again = load(io.BytesIO(saved(model)))
    np.testing.assert_array_equal(again.score(widened(ROWS[:20], 4)), model.score(widened(ROWS[:20], 4)))


def test_learning_on_with_new_items(model):
    rows = sparse.random(50, ITEMS + 3, 0.3, format="csr", random_state=1, dtype=np.float32)
    rows.data[:] = 1
    table = model.network_.decoder.weight.detach().clone()
    begun = copy.deepcopy(model).partial_fit(rows, epochs=0, show_progress=False)
    assert torch.equal(begun.network_.decoder.weight[:ITEMS], table)
    learned = copy.deepcopy(model).partial_fit(rows, epochs=2, show_progress=False)
    assert are_tied(learned.network_)
    assert not torch.equal(learned.network_.decoder.weight, begun.network_.decoder.weight)
    vectors = item_vectors(learned.network_)
    assert torch.equal(vectors.first, vectors.last)


def widened(rows, more):
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], rows.shape[1] + more))


def saved(model):
    stream = io.BytesIO()
    model.save(stream)
    return stream.getvalue()


def test_tied_vectors_are_the_mean_of_both_layers():
    first, last, bias = torch.rand(3, 2), torch.rand(3, 2), torch.rand(3)
    one = tied_vectors(ItemVectors(first, last, bias))
    assert torch.equal(one.first, (first + last) / 2)
    assert one.last is one.first


@pytest.mark.parametrize("learns", [("encoder",), ("decoder",), ("encoder", "decoder")])
def test_what_both_ends_share_learns_with_either(learns, fitted):
    """RecVAE's encoder and decoder learn in turns: the table learns in both."""
    network = fitted("RecVAE").network_
    Phase(learns).apply(network)
    assert network.decoder.weight.requires_grad
    assert network.decoder.bias.requires_grad == ("decoder" in learns)
    assert all(layer.weight.requires_grad == ("encoder" in learns) for layer in network.encoder.layers)
    assert (network.encoder.training, network.decoder.training) == ("encoder" in learns, "decoder" in learns)


@pytest.mark.parametrize(
    "model",
    [
        MultVAE(hidden_dims=(), latent_dim=4, output=OutputOptions(tied_embeddings=True)),
        RecVAE(hidden_dim=6, latent_dim=5, output=OutputOptions(tied_embeddings=True)),
        HVamp(hidden_dims=(6,), latent_dim=6, output=OutputOptions(tied_embeddings=True)),
    ],
    ids=["no layers", "RecVAE", "HVamp"],
)
def test_ends_of_two_widths(model):
    with pytest.raises(
        InvalidParameterError, match=r"Expected an input layer and an output layer of one width .* got \d+ and \d"
    ):
        model.fit(ROWS)


def test_ends_of_one_width_with_others_between():
    """The decoder mirrors the encoder."""
    model = MultVAE(hidden_dims=(7, 5), latent_dim=3, epochs=1, output=OutputOptions(tied_embeddings=True)).fit(ROWS)
    assert are_tied(model.network_)


@pytest.mark.parametrize("name", ["MultVAE", "MultVAE-sampled", "RecVAE", "HybridVAE"])
def test_what_a_posterior_gives(name, fitted):
    model, rows = fitted(name), ROWS[:20]
    encoding = model.encode(rows)
    assert encoding.mean.shape == (20, MODELS[name].latent_dim)
    assert np.isfinite(encoding.mean).all()
    assert np.isfinite(encoding.logvar).all()
    odd = model.anomaly_score(rows, ROWS)
    assert np.isfinite(odd).all()
    assert len(np.unique(odd)) > 10
    for latent in ("prior", "aggregate"):
        drawn = model.sample_users(20, latent, user_items=ROWS, random_state=0)
        assert drawn.shape == (20, ITEMS)
        assert drawn.nnz


# what biases begin with -----------------------------------------------------------------------------------------------


def begun(**settings):
    """The output layer's biases before the first step."""
    model, states = with_params(MultVAE(hidden_dims=(6,), latent_dim=4, epochs=1, random_state=0), settings), []
    make = model._train
    model._train = lambda state, *given: (
        states.append(state.network.decoder.bias.detach().clone()) or make(state, *given)
    )
    model.fit(ROWS)
    return states[0]


def test_a_softmax_of_the_first_biases_is_what_users_have():
    share = ROWS.getnnz(axis=0) + 1.0
    torch.testing.assert_close(
        begun(output__item_biases="popularity").double().softmax(0), torch.from_numpy(share / share.sum())
    )


def test_biases_start_from_popularity_for_multinomials():
    sampled = {"training__impl": "sampled", "training__num_negatives": 10}
    for impl in ({}, sampled):
        assert torch.equal(begun(**impl), begun(**impl, output__item_biases="popularity"))
    assert torch.equal(begun(output__item_biases="normal"), begun(**sampled, output__item_biases="normal"))
    assert not torch.equal(begun(), begun(output__item_biases="normal"))
    for likelihood in ("logistic", "gaussian"):
        assert begun(likelihood=likelihood).abs().max() < 0.1  # not by popularity


def test_popularity_is_of_multinomials():
    with pytest.raises(InvalidParameterError, match="Expected the multinomial likelihood for output__item_biases="):
        MultVAE(likelihood="logistic", output=OutputOptions(item_biases="popularity")).fit(ROWS)
