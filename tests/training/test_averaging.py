"""The moving average of the weights, which validation, callbacks and the end of a fit get instead of the last."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import Checkpoint, MultVAE, RecVAE, TrainConfig, Trainer
from recvae.errors import InvalidParameterError
from recvae.models.base.params import with_params
from recvae.nn.encoders import input_layer
from recvae.nn.rng import initialize
from recvae.training.callbacks import Callback
from tests.training.stops import StopAt, StopError

ROWS = sparse.random(90, 20, 0.3, format="csr", random_state=0, dtype=np.float32)
ROWS.data[:] = 1
SMALL = {"latent_dim": 3, "batch_size": 30, "epochs": 3, "random_state": 0, "training__precision": "float32"}


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def trainer_of(averaging, batch_size=30, **config):
    network = MultVAE(latent_dim=3, hidden_dims=(5,))._network(20)
    initialize(network, 0)
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01)]
    settings = TrainConfig(3, batch_size, precision="float32", averaging=averaging, **config)
    return Trainer(network, settings, optimizers=optimizers)


class Diary(Callback):
    """The weights of a network after each step, and as they are at the end of each epoch."""

    def __init__(self, network):
        self.network, self.steps, self.epochs = network, [], []

    def on_step_end(self, epoch, step):
        self.steps.append((step, weights(self.network)))

    def on_epoch_end(self, epoch):
        self.epochs.append(weights(self.network))


def averages_by_hand(steps, n_steps, every, averaging):
    """After each epoch, by the formula."""
    average, updates, found = None, 0, []
    for step, now in steps:
        if step % every == 0:
            decay = max(0.0, min(1 - every / (averaging * n_steps), updates / (updates + 1)))
            now = now.double()
            average = now if average is None else decay * average + (1 - decay) * now
            updates += 1
        if step == n_steps:
            found.append(average)
    return found


@pytest.mark.parametrize(
    ("averaging", "batch_size", "n_steps", "every"),
    [(0.5, 30, 3, 1), (2.0, 30, 3, 1), (0.01, 30, 3, 1), (0.5, 2, 45, 4)],
)
def test_the_average_is_that_of_the_formula(averaging, batch_size, n_steps, every):
    trainer = trainer_of(averaging, batch_size)
    diary = Diary(trainer.network)
    trainer.fit(ROWS, callbacks=[diary])
    expected = averages_by_hand(diary.steps, n_steps, every, averaging)
    for seen, average in zip(diary.epochs, expected, strict=True):
        np.testing.assert_allclose(seen, average, rtol=0, atol=1e-6)
    assert torch.equal(weights(trainer.network), diary.epochs[-1])
    assert not trainer.state.averages
    last_step = diary.steps[-1][1]
    assert torch.equal(diary.epochs[-1], last_step) == (averaging == 0.01)


def test_training_itself_goes_on_from_the_last_weights():
    with_averages, without = trainer_of(2.0), trainer_of(0.0)
    diaries = [Diary(trainer.network) for trainer in (with_averages, without)]
    losses = [
        [epoch.loss for epoch in trainer.fit(ROWS, validate=lambda: 0.0, callbacks=[diary])]
        for trainer, diary in zip((with_averages, without), diaries, strict=True)
    ]
    assert losses[0] == losses[1]
    for (_, one), (_, other) in zip(diaries[0].steps, diaries[1].steps, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(diaries[1].epochs[-1], diaries[1].steps[-1][1])


def test_validation_sees_the_averages_and_the_best_are_kept():
    trainer, seen, scores = trainer_of(2.0), [], iter([0.1, 0.3, 0.2])
    diary = Diary(trainer.network)

    def validate():
        seen.append(weights(trainer.network))
        return next(scores)

    trainer.fit(ROWS, validate=validate, callbacks=[diary])
    for one, average in zip(seen, averages_by_hand(diary.steps, 3, 1, 2.0), strict=True):
        np.testing.assert_allclose(one, average, rtol=0, atol=1e-6)
    assert torch.equal(weights(trainer.network), seen[1])
    assert not trainer.state.averages
    assert not trainer.state.best_weights


def test_an_error_in_a_callback_leaves_the_last_weights():
    trainer = trainer_of(2.0)
    diary = Diary(trainer.network)

    def stop(epoch):
        raise StopError

    with pytest.raises(StopError):
        trainer.fit(ROWS, callbacks=[diary, stop])
    assert torch.equal(weights(trainer.network), diary.steps[-1][1])


# the last two before and after the first update, which is that of the fourth step
@pytest.mark.parametrize(("batch_size", "steps"), [(10, 1), (10, 4), (10, 9), (10, 13), (2, 1), (2, 6)])
def test_a_stopped_run_is_resumed_with_its_averages(batch_size, steps, tmp_path):
    whole, resumed = trainer_of(1.0, batch_size), trainer_of(1.0, batch_size)
    whole.fit(ROWS)
    with pytest.raises(StopError):
        trainer_of(1.0, batch_size).fit(ROWS, callbacks=[StopAt(steps)], checkpoint=Checkpoint(tmp_path, minutes=0))
    with pytest.raises(InvalidParameterError, match=r"Expected the parameters with which .* was begun"):
        trainer_of(0.5, batch_size).fit(ROWS, checkpoint=tmp_path)
    resumed.fit(ROWS, checkpoint=Checkpoint(tmp_path, minutes=None, epochs=None))
    assert torch.equal(weights(resumed.network), weights(whole.network))


@pytest.mark.parametrize("kind", [partial(MultVAE, hidden_dims=(3,)), partial(RecVAE, hidden_dim=3, depth=2)])
def test_a_shared_weight_is_averaged_once_and_stays_shared(kind, tmp_path):
    def model():
        return with_params(kind(), SMALL | {"output__tied_embeddings": True, "training__averaging": 1.0})

    whole, keep = model().fit(ROWS), Checkpoint(tmp_path, minutes=0)
    last = with_params(model(), {"training__averaging": 0.0}).fit(ROWS)
    assert not torch.equal(weights(whole.network_), weights(last.network_))
    with pytest.raises(StopError):
        model().fit(ROWS, callbacks=[StopAt(5)], checkpoint=keep)
    resumed = model().fit(ROWS, checkpoint=keep)
    assert torch.equal(weights(resumed.network_), weights(whole.network_))
    for network in (whole.network_, resumed.network_):
        assert torch.equal(input_layer(network.encoder).weight, network.decoder.weight[: len(network.decoder.bias)])


def test_the_default_is_half_an_epoch_and_less_in_short_runs():
    def averaging(**changes):
        return with_params(MultVAE(latent_dim=3, epochs=20), changes).trainer(ROWS).config.averaging

    assert averaging() == averaging(epochs=10) == averaging(epochs=None) == 0.5
    assert averaging(epochs=9) == 0
    assert averaging(training__averaging=3) == 3
    assert averaging(training__averaging=0) == 0
    assert averaging(training__initial_weights="random") == 0
    assert averaging(likelihood="gaussian") == 0
    assert averaging(training__impl="sampled") == 0
    assert averaging(training__impl="sampled", training__averaging=1.0) == 1
    with pytest.raises(InvalidParameterError, match="averaging"):
        averaging(training__averaging=-1.0)


def test_new_items_are_learnt_without_averages(monkeypatch):
    configs = []
    model = with_params(MultVAE(hidden_dims=(5,)), SMALL | {"training__averaging": 2.0}).fit(ROWS)
    init = Trainer.__init__

    def recorded(self, network, config=None, **options):
        configs.append(config)
        init(self, network, config, **options)

    monkeypatch.setattr(Trainer, "__init__", recorded)
    model.partial_fit(ROWS, epochs=1)
    assert [config.averaging for config in configs] == [0.0]
