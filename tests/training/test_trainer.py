"""The trainer alone, on networks of one's own, as a researcher uses it."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

import recvae
from recvae import TrainConfig, Trainer
from recvae.errors import InvalidDataError, RecvaeError, UnknownNameError
from recvae.nn import VAE, Elbo, GaussianEncoder, MLPDecoder, StandardNormal
from recvae.nn.likelihood import nll
from recvae.nn.schedules import linear_schedule
from recvae.training.callbacks import Callback
from recvae.training.state import Phase

ROWS = sparse.random(90, 20, 0.3, format="csr", random_state=0, dtype=np.float32)
ROWS.data[:] = 1


def a_vae():
    return VAE(
        GaussianEncoder(20, (8,), 4, 0.5), MLPDecoder(4, (8,), 20), partial(nll, family="multinomial"), StandardNormal()
    )


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class Linear(nn.Module):
    """The least that a trainer trains: terms of the loss, from a batch."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(20))

    def forward(self, batch, noise):
        nll = -batch.sum(batch.values * self.logits.log_softmax(0)[batch.items.long()])
        return Elbo(nll, torch.zeros_like(nll))


def test_a_network_and_rows_are_enough():
    trainer = Trainer(a_vae(), TrainConfig(epochs=6, learning_rate=0.01))
    history = trainer.fit(ROWS)
    assert len(history) == 6
    assert history[-1].loss < history[0].loss
    assert not trainer.network.training
    assert trainer.state.history == history


def test_it_is_the_training_of_mult_vae():
    model = recvae.MultVAE(latent_dim=4, hidden_dims=(8,), dropout=0.5, epochs=3, random_state=5, values="raw")
    model.set_params(output__item_biases="normal", training__initial_weights="random")
    model.set_params(training__precision="float32").fit(ROWS)  # of the likelihood too, which is the default there
    by_hand = model.trainer(ROWS)
    by_hand.fit(ROWS)
    own = a_vae()
    beta = partial(linear_schedule, cap=model.kl_cap, anneal=model.kl_anneal)
    Trainer(own, TrainConfig(epochs=3, beta=beta, seed=5, precision="float32")).fit(ROWS)
    assert torch.equal(weights(own), weights(model.network_))
    assert torch.equal(weights(by_hand.network), weights(model.network_))


def test_any_module_that_gives_both_terms_is_trained():
    network = Linear()
    Trainer(network, TrainConfig(epochs=60, learning_rate=0.1)).fit(ROWS)
    shares = np.asarray(ROWS.sum(0)).ravel() / ROWS.sum()
    np.testing.assert_allclose(network.logits.detach().softmax(0), shares, atol=0.01)


def test_a_loss_of_one_s_own():
    def twice(elbo, beta):
        return 2 * elbo.nll.mean()

    network = Linear()
    history = Trainer(network, TrainConfig(epochs=1), loss=twice).fit(ROWS)
    assert history[0].loss == pytest.approx(2 * history[0].nll, rel=1e-6)


def test_steps_by_hand_are_those_of_fit():
    config = TrainConfig(epochs=1, batch_size=30, beta=0.2)
    fitted, by_hand = Trainer(a_vae(), config), Trainer(a_vae(), config)
    fitted.fit(ROWS)
    with by_hand.in_pass():
        losses = [by_hand.step(batch) for batch in by_hand.batches(ROWS)]
    assert [tuple(each.shape) for each in losses] == [(3,)] * 3
    assert torch.equal(weights(fitted.network), weights(by_hand.network))


def test_weights_that_are_there_are_kept():
    network = a_vae()
    Trainer(network, TrainConfig(seed=3))
    before = weights(network)
    assert before.isfinite().all()
    Trainer(network, TrainConfig(seed=4))
    assert torch.equal(weights(network), before)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9), torch.optim.SGD])
def test_a_stopped_run_is_resumed(tmp_path, optimizer):
    class CutError(Exception):
        pass

    def cut(epoch):
        if epoch.epoch == 2:
            raise CutError

    def trainer(**changes):
        config, network = TrainConfig(epochs=4, beta=lambda progress: 0.2 * progress, **changes), a_vae()
        return Trainer(network, config, optimizers=[optimizer(network.parameters(), lr=0.01)])

    whole, resumed = trainer(), trainer()
    whole.fit(ROWS)
    with pytest.raises(CutError):
        trainer().fit(ROWS, callbacks=[cut], checkpoint=tmp_path / "kept")
    resumed.fit(ROWS, checkpoint=tmp_path / "kept")
    assert torch.equal(weights(whole.network), weights(resumed.network))
    with pytest.raises(recvae.errors.InvalidParameterError, match="learning_rate"):
        trainer(learning_rate=0.1).fit(ROWS, checkpoint=tmp_path / "kept")


def test_callbacks_and_validation():
    events = []

    class Diary(Callback):
        def on_fit_start(self, info):
            events.append((info.model, info.users, info.items, info.metric))

        def on_fit_end(self, error):
            events.append(error)

    scores = iter([0.1, 0.3, 0.2, 0.2])
    trainer = Trainer(Linear(), TrainConfig(epochs=9, patience=2))
    history = trainer.fit(ROWS, validate=lambda: next(scores), metric="luck", callbacks=[Diary()])
    assert events == [("Linear", 90, 20, "luck"), None]
    assert [epoch.valid for epoch in history] == [0.1, 0.3, 0.2, 0.2]


def test_a_long_run_says_what_it_does(tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="recvae"):
        model = recvae.MultVAE(epochs=2, latent_dim=4, hidden_dims=(8,), random_state=0)
        model.fit(ROWS, checkpoint=tmp_path / "kept", show_progress=False)
        model.set_params(epochs=2).fit(ROWS, checkpoint=tmp_path / "kept", show_progress=False)
    text = caplog.text
    assert "MultVAE: 90 users x 20 items" in text
    assert "likelihood, 20 items are no more than" in text
    assert "epoch 2: loss" in text
    assert "checkpoint written" in text
    assert "resumed from" in text
    assert {record.name.split(".")[0] for record in caplog.records} == {"recvae"}
    assert capsys.readouterr() == ("", "")


def test_nothing_is_printed_by_default(capsys):
    Trainer(a_vae(), TrainConfig(epochs=1)).fit(ROWS)
    assert capsys.readouterr() == ("", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("recvae").handlers)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs to be an integer of at least 1, got 0"),
        ({"epochs": 2.5}, "epochs to be an integer"),
        ({"batch_size": 0}, "batch_size to be an integer of at least 1, got 0"),
        ({"stop_epoch": 0}, "stop_epoch to be"),
        ({"patience": 0}, "patience to be"),
        ({"seed": -1}, "seed to be an integer of at least 0, got -1"),
        ({"learning_rate": -0.1}, "learning_rate to be a finite number of 0 or more, got -0.1"),
        ({"learning_rate": "fast"}, "learning_rate to be"),
        ({"weight_decay": float("nan")}, "weight_decay to be"),
        ({"averaging": -1}, "averaging to be"),
        ({"max_grad_norm": 0}, "max_grad_norm to be a finite number above 0, got 0"),
        ({"beta": None}, "beta to be"),
        ({"precision": "float8"}, "no precision called 'float8'"),
        ({"phases": ()}, "phases to be a list of at least one Phase"),
        ({"phases": ["encoder"]}, "phases to be a list"),
        ({"phases": Phase()}, "phases to be a list"),
        ({"phases": [Phase(("encoder", "decodr"))]}, "called 'decodr'; did you mean decoder"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_before_the_training(options, words):
    with pytest.raises(RecvaeError, match=words):
        Trainer(a_vae(), TrainConfig(**options))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((("encoder",), 0), "passes of a Phase"), (("encoder",), "a tuple of"), (((),), "at least one name")],
)
def test_a_phase_is_checked(arguments, words):
    with pytest.raises(RecvaeError, match=words):
        Phase(*arguments)


def test_a_network_whose_parts_are_all_frozen_is_refused():
    network = nn.Module()
    network.body = nn.Linear(2, 2)
    with pytest.raises(UnknownNameError, match="called 'encoder'; known are body"):
        Trainer(network)
    Trainer(network, TrainConfig(phases=[Phase(("body",))]))
    with pytest.raises(UnknownNameError, match="called 'body'; there is none"):
        Trainer(Linear(), TrainConfig(phases=[Phase(("body",))]))


@pytest.mark.parametrize("shape", [(0, 20), (5, 20), (40, 19), (40, 21)])
def test_rows_that_do_not_fit_are_refused(shape):
    trainer = Trainer(a_vae(), TrainConfig(epochs=1))
    rows = sparse.csr_matrix(shape, dtype=np.float32) if shape[1] == 20 else sparse.eye(*shape, format="csr")
    words = "at least one event" if shape[1] == 20 else f"Expected 20 columns, one for each item, got {shape[1]}"
    for use in (trainer.fit, lambda rows: next(iter(trainer.batches(rows)))):
        with pytest.raises(InvalidDataError, match=words):
            use(rows)
