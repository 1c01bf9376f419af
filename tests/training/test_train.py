from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import MultVAE, RecVAE, TrainingOptions
from recvae.data.batches import DeviceRows
from recvae.errors import TrainingError
from recvae.models import MultDAE
from recvae.nn.rng import initialize
from recvae.training.state import TrainConfig
from recvae.training.trainer import Trainer

ROWS = sparse.random(40, 20, 0.3, format="csr", random_state=0, dtype=np.float32)


def trainer_of(epochs, batch_size, beta=0.1, *, optimizer=None, **config):
    network = MultVAE(latent_dim=3, hidden_dims=(5,))._network(20)
    initialize(network, 0)
    optimizers = [(optimizer or partial(torch.optim.Adam, lr=0.01))(network.parameters())]
    settings = TrainConfig(epochs, batch_size, beta=beta, precision="float32", **config)
    return Trainer(network, settings, optimizers=optimizers)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_the_best_weights_are_restored_and_patience_ends_the_run():
    trainer = trainer_of(6, 16, patience=3)
    network = trainer.network
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.2, 0.9])
    seen = []

    def validate():
        seen.append(weights(network))
        assert not network.training
        return next(scores)

    history = trainer.fit(ROWS, validate=validate)
    assert [epoch.valid for epoch in history] == [0.1, 0.3, 0.2, 0.2, 0.2]
    assert torch.equal(weights(network), seen[1])


def test_without_validation_the_last_weights_stay():
    history = trainer_of(2, 16).fit(ROWS)
    assert [epoch.valid for epoch in history] == [None, None]
    assert history[-1].loss == pytest.approx(history[-1].nll + 0.1 * history[-1].kl, rel=1e-5)
    assert history[-1].elbo == pytest.approx(-history[-1].nll - history[-1].kl)


def test_beta_is_asked_for_shares_of_the_run():
    asked = []
    trainer_of(2, 16, lambda progress: asked.append(progress) or 0.0).fit(ROWS)
    assert asked == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_callbacks_get_each_epoch():
    got = []
    history = trainer_of(3, 50, 0.0).fit(ROWS, callbacks=[got.append])
    assert got == history
    assert [epoch.epoch for epoch in got] == [1, 2, 3]
    assert all(epoch.seconds > 0 for epoch in got)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice():
    trainer = trainer_of(5, 16, 1.0, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(
        TrainingError, match=r"Expected a finite loss, got (nan|inf) in step \d of 3 of epoch \d; lower learning_rate"
    ):
        trainer.fit(ROWS)


def test_the_step_at_which_a_loss_is_lost_is_named():
    def beta(progress):
        return float("nan") if progress == pytest.approx((1 + 1 / 3) / 5) else 0.1

    with pytest.raises(TrainingError, match=r"got nan in step 2 of 3 of epoch 2; lower learning_rate, set max_grad"):
        trainer_of(5, 16, beta).fit(ROWS)


@pytest.mark.parametrize("learning_rate", [1e20, 1e30, 1e38])
@pytest.mark.parametrize("model", [MultVAE, MultDAE, RecVAE])
def test_a_last_step_that_blows_up_is_no_fit(model, learning_rate):
    """No loss has seen what the last step left."""
    small = {"epochs": 1, "latent_dim": 3, "batch_size": 40, "random_state": 0}
    passes = {"encoder_passes": 1, "hidden_dim": 4} if model is RecVAE else {}
    blown = model(learning_rate=learning_rate, **small, **passes)
    with pytest.raises(TrainingError, match="lower learning_rate"):
        blown.fit(ROWS, show_progress=False)
    assert not hasattr(blown, "network_")


def test_weights_are_looked_at_before_they_are_validated():
    trainer = trainer_of(1, 40, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(TrainingError, match=r"finite weights of at most 1e\+15 after epoch 1, got others in \w+"):
        trainer.fit(ROWS, validate=pytest.fail)


def test_a_metric_that_is_no_number_ends_the_run():
    with pytest.raises(TrainingError, match="finite metric on validation users, got nan after epoch 1"):
        trainer_of(2, 40).fit(ROWS, validate=lambda: float("nan"))


def test_gradients_are_clipped_to_their_norm():
    moved = []
    for limit in (0.01, None):
        trainer = trainer_of(1, 40, max_grad_norm=limit, optimizer=partial(torch.optim.SGD, lr=1.0))
        before = weights(trainer.network)
        trainer.fit(ROWS)
        moved.append((weights(trainer.network) - before).norm().item())
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1] > 0.02


def test_no_gradients_are_left_behind():
    model = MultVAE(epochs=1, latent_dim=4, random_state=0).fit(ROWS)
    assert all(parameter.grad is None for parameter in model.network_.parameters())


def test_in_bfloat16_the_loss_goes_the_same_way():
    losses = {
        precision: [
            epoch.loss
            for epoch in MultVAE(epochs=4, latent_dim=8, random_state=0, training=TrainingOptions(precision=precision))
            .fit(ROWS)
            .history_
        ]
        for precision in ("float32", "bfloat16")
    }
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.01)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_epoch_on_a_gpu_never_waits_for_it():
    device = torch.device("cuda")
    rows = DeviceRows(ROWS, device)
    for precision in ("float32", "bfloat16"):
        network = MultVAE(latent_dim=3, hidden_dims=(5,))._network(20).to(device)
        initialize(network, 0)
        trainer = Trainer(network, TrainConfig(1, 16, precision=precision, max_grad_norm=1.0))
        batches = rows.batches_of(0, 16)
        first = next(batches)  # before it, the order comes to the host
        try:
            torch.cuda.set_sync_debug_mode("error")
            with trainer.in_pass():
                for batch in (first, *batches):
                    trainer.step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")  # before the losses come to the host
        assert torch.stack(trainer.state.losses).isfinite().all()


def test_the_same_seed_gives_the_same_weights_twice_and_another_does_not():
    for kind in (MultVAE, MultDAE):
        one, two, other = (
            weights(kind(epochs=3, latent_dim=4, random_state=seed, batch_size=16).fit(ROWS).network_)
            for seed in (0, 0, 1)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


def test_training_and_scoring_leave_the_global_generators_alone():
    torch.manual_seed(3)
    np.random.seed(3)
    before, before_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    model = MultVAE(epochs=2, latent_dim=4, random_state=0).fit(ROWS)
    model.recommend([0, 1], ROWS[:2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()


def test_training_lowers_the_loss():
    history = MultVAE(epochs=8, latent_dim=8, random_state=0, learning_rate=0.01).fit(ROWS).history_
    assert history[-1].loss < history[0].loss


def test_a_model_s_trainer_starts_from_the_network_of_its_fit():
    model = MultVAE(epochs=1, latent_dim=4, hidden_dims=(8,), random_state=0, batch_size=16)
    model.set_params(output__item_biases="popularity")
    rows = ROWS.sign()
    trainer = model.trainer(rows)
    trainer.fit(rows)
    fitted = model.fit(rows, show_progress=False)
    assert torch.equal(weights(trainer.network), weights(fitted.network_))
