"""Priors and the two-level posterior, against brute force and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from recvae import HVamp, nn
from recvae.data.batches import DeviceRows
from recvae.errors import InvalidParameterError, InvalidTypeError, NotSupportedError
from recvae.nn.encoders import input_layer
from recvae.nn.priors import mixture_log_density
from recvae.nn.rng import CounterRNG, initialize

ENCODERS = {
    "plain": (lambda: nn.GaussianEncoder(13, (6,), 4, dropout=0.5), 6),
    "gated": (lambda: nn.GatedTwoLevelEncoder(13, (6, 5), 4, dropout=0.5), 12),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n_users, seed=0):
    dense = np.random.default_rng(seed).poisson(0.7, (n_users, 13)).astype(np.float32)
    return DeviceRows(sparse.csr_matrix(dense), torch.device("cpu")).all()


def gaussian(n, k, dtype=torch.float32, seed=0):
    mean, logvar = torch.randn(2, n, k, generator=generator(seed)).to(dtype)
    return nn.Gaussian(mean, logvar)


def brute_force(z, components):
    normals = Independent(Normal(components.mean, (0.5 * components.logvar).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(components.mean))), normals).log_prob(z)


@pytest.fixture(params=ENCODERS)
def encoder_and_width(request):
    make, width = ENCODERS[request.param]
    encoder = make()
    initialize(encoder, 0)
    for parameter in encoder.parameters():
        parameter.data *= 3  # posteriors that differ
    return encoder.eval(), width


def upper(posterior):
    return getattr(posterior, "upper", posterior)


@pytest.mark.parametrize("n_components", [1, 2, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_density_of_a_mixture(n_components, dtype):
    components, z = gaussian(n_components, 8, dtype), 3 * torch.randn(20, 8, dtype=dtype, generator=generator(1))
    expected = brute_force(z, components)
    found = mixture_log_density(z, components)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4 if dtype == torch.float32 else 1e-10)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mixture_log_density(z, components), found)


def test_pseudo_inputs_are_rows_behind_the_first_layer(encoder_and_width):
    encoder, width = encoder_and_width
    users, z = rows(5), torch.randn(20, 4)
    prior = nn.VampPrior(5, width)
    prior.pseudo_inputs.data = encoder.bag(users, None)
    torch.testing.assert_close(prior.log_density(z, encoder), brute_force(z, upper(encoder(users))))


def test_a_user_who_is_the_one_pseudo_input_has_no_divergence_whatever_the_draw(encoder_and_width):
    encoder, width = encoder_and_width
    user, prior = rows(1), nn.VampPrior(1, width)
    prior.pseudo_inputs.data = encoder.bag(user, None)
    posterior = upper(encoder(user))
    for seed in range(5):
        kl = prior(posterior, posterior.sample(CounterRNG.for_batch(seed, user)), user, encoder)
        assert kl.item() == pytest.approx(0, abs=1e-4)


def test_with_one_pseudo_input_the_divergence_is_in_the_mean_that_of_two_gaussians(encoder_and_width):
    encoder, width = encoder_and_width
    user, other = upper(encoder(rows(1))), rows(1, seed=1)
    prior = nn.VampPrior(1, width)
    prior.pseudo_inputs.data = encoder.bag(other, None)
    draws = nn.Gaussian(*(part.expand(20_000, -1) for part in user))
    found = prior(draws, draws.sample(CounterRNG(0, torch.arange(20_000))), other, encoder)
    expected = nn.gaussian_kl(user, upper(encoder(other)))
    assert expected > 0.1
    assert found.mean().item() == pytest.approx(expected.item(), abs=4 * found.std().item() / math.sqrt(20_000))


def test_the_prior_teaches_pseudo_inputs_and_encoder(encoder_and_width):
    encoder, width = encoder_and_width
    prior = nn.VampPrior(3, width)
    initialize(prior, 0)
    prior.log_density(torch.randn(7, 4), encoder).sum().backward()
    assert (prior.pseudo_inputs.grad != 0).all()
    assert encoder.bag.weight.grad is None  # it is not asked
    assert any(layer.weight.grad is not None for layer in encoder.layers)


def test_the_divergence_of_gaussians_equals_torch_distributions():
    one, other = gaussian(50, 8, torch.float64), gaussian(50, 8, torch.float64, seed=1)
    first, second = (Normal(part.mean, (0.5 * part.logvar).exp()) for part in (one, other))
    torch.testing.assert_close(nn.gaussian_kl(one, other), kl_divergence(first, second).sum(1))
    nothing = nn.Gaussian(torch.zeros(50, 8), torch.zeros(50, 8))
    torch.testing.assert_close(nn.gaussian_kl(one, nothing), nn.standard_normal_kl(one))


def test_z_is_both_levels_and_without_noise_their_means():
    encoder, users = ENCODERS["gated"][0](), rows(400)
    initialize(encoder, 0)
    encoder.eval()
    plain = encoder(users)
    assert torch.equal(plain.mean, torch.cat([plain.lower.mean, plain.upper.mean], dim=1))
    drawn = encoder(users, CounterRNG.for_batch(0, users))
    z1, z2 = drawn.sample(CounterRNG.for_batch(1, users)).chunk(2, dim=1)
    assert torch.equal(z2, drawn.z2)
    for z, level in ((z1, drawn.lower), (z2, drawn.upper)):  # noise of standard deviation 1, at both
        eps = (z - level.mean) / (0.5 * level.logvar).exp()
        assert eps.std().item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(drawn.lower.mean, plain.lower.mean)  # z1 is asked for at the draw of z2


def test_the_terms_of_two_levels_by_hand():
    prior = nn.TwoLevelPrior(nn.StandardNormal(), 4, 6)
    initialize(prior, 0)
    users = rows(20)
    posterior = nn.TwoLevels(gaussian(20, 4), torch.randn(20, 4), gaussian(20, 4, seed=1), None)
    W, V = prior.hidden.weight.chunk(2)
    b, c = prior.hidden.bias.chunk(2)
    h = (posterior.z2 @ W.T + b) * torch.sigmoid(posterior.z2 @ V.T + c)
    mean, logvar = (h @ prior.lower.weight.T + prior.lower.bias).chunk(2, dim=1)
    lower, below = (
        Normal(level.mean, (0.5 * level.logvar).exp()) for level in (posterior.lower, nn.Gaussian(mean, logvar))
    )
    expected = nn.standard_normal_kl(posterior.upper) + kl_divergence(lower, below).sum(1)
    torch.testing.assert_close(
        prior(posterior, posterior.sample(CounterRNG.for_batch(0, users)), users, None), expected
    )


@pytest.mark.parametrize("verb", ["divergence", "sample"])
def test_what_a_prior_of_one_s_own_lacks_is_named(verb):
    class Mine(nn.BasePrior):
        pass

    with pytest.raises(NotSupportedError, match=rf"Expected Mine to define {verb}.* needs"):
        Mine().divergence(None, None) if verb == "divergence" else Mine().sample((1, 2), None, None)


def test_hvamp_learns_its_prior_and_needs_a_layer():
    matrix = sparse.random(40, 20, 0.3, format="csr", random_state=0, dtype=np.float32)
    settings = {"latent_dim": 3, "hidden_dims": (5,), "n_components": 4, "random_state": 0}
    before, after = (HVamp(epochs=epochs, **settings).fit(matrix).network_.prior for epochs in (1, 2))
    for name, parameter in before.named_parameters():
        assert not torch.equal(parameter, after.get_parameter(name)), name
    with pytest.raises(InvalidParameterError, match=r"at least one hidden layer in hidden_dims of HVamp, such as"):
        HVamp(hidden_dims=()).fit(matrix)


# priors and encoders of one's own -------------------------------------------------------------------------------------


class ByDensity(nn.BasePrior):
    """N(0, I), of which only the density is known."""

    def log_density(self, z, encoder):
        return Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1).log_prob(z)


def test_without_a_closed_form_the_divergence_is_estimated_the_same_in_each_call_and_for_each_user():
    posterior, prior = gaussian(30, 4, torch.float64), ByDensity()
    found = prior.divergence(posterior, None)
    assert torch.equal(found, prior.divergence(posterior, None))
    torch.testing.assert_close(
        found[:10], prior.divergence(nn.Gaussian(posterior.mean[:10], posterior.logvar[:10]), None)
    )
    expected = nn.standard_normal_kl(posterior)
    assert ((found - expected).abs() < 0.4 * expected.clamp(min=1)).all()  # of 64 draws
    assert (found - expected).mean().abs() < 0.1 * expected.mean()


def test_in_training_it_is_estimated_from_the_draw():
    posterior, users = gaussian(5, 4), rows(5)
    z = posterior.sample(CounterRNG.for_batch(0, users))
    expected = posterior.log_density(z).sum(1) - nn.StandardNormal().log_density(z, None)
    torch.testing.assert_close(ByDensity()(posterior, z, users, None), expected)


def test_the_density_of_two_levels_is_that_of_each_in_turn():
    encoder = ENCODERS["gated"][0]()
    prior = nn.TwoLevelPrior(nn.StandardNormal(), 4, 6)
    for part in (encoder, prior):
        initialize(part, 0)
    with torch.no_grad():
        z, posterior = torch.randn(3, 8, generator=generator()), encoder(rows(3))
        lower = prior._lower_at(z[:, 4:])
        expected = brute_force(z[:, 4:], nn.Gaussian(torch.zeros(1, 4), torch.zeros(1, 4)))
        expected += Independent(Normal(lower.mean, (0.5 * lower.logvar).exp()), 1).log_prob(z[:, :4])
        torch.testing.assert_close(prior.log_density(z, encoder), expected)
        at_z2 = posterior.lower_at(z[:, 4:]).log_density(z[:, :4])
        torch.testing.assert_close(
            posterior.log_density(z), torch.cat([at_z2, posterior.upper.log_density(z[:, 4:])], 1)
        )


class Own(torch.nn.Module):
    """An encoder by its signature alone."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(13, 8)

    def forward(self, batch, rng=None):
        x = torch.zeros(len(batch), 13).index_put((batch.rows, batch.items), batch.values)
        return nn.Gaussian.split(self.layer(x))


@pytest.mark.parametrize("prior", [nn.StandardNormal, nn.Composite, ByDensity], ids=lambda kind: kind.__name__)
def test_an_encoder_of_one_s_own_needs_nothing_but_its_signature(prior):
    network = nn.VAE(Own(), nn.MLPDecoder(4, (), 13), nn.nll, prior())
    initialize(network, 0)
    users = rows(6)
    matrix = sparse.csr_matrix((users.values.numpy(), users.items.numpy(), users.offsets.numpy()), shape=(6, 13))
    network.prior.update(network.encoder, DeviceRows(matrix, torch.device("cpu")))
    network(users, CounterRNG.for_batch(0, users)).loss(0.2).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert network.scores(users).shape == (6, 13)


def test_what_an_encoder_of_one_s_own_lacks_is_named():
    with pytest.raises(NotSupportedError, match="Expected an encoder whose first layer is an InputLayer called bag"):
        input_layer(Own())
    vamp = nn.VampPrior(3, 6)
    with pytest.raises(NotSupportedError, match="Expected an encoder with a method head"):
        vamp.log_density(torch.zeros(2, 4), Own())
    with pytest.raises(InvalidTypeError, match="Expected an encoder of two levels, such as GatedTwoLevelEncoder"):
        nn.TwoLevelPrior(vamp, 4, 6).divergence(gaussian(2, 4), Own())
    with pytest.raises(NotSupportedError, match="Expected an encoder that gives a distribution"):
        ByDensity().divergence(nn.Point(torch.zeros(2, 4)), Own())


def test_a_two_level_prior_passes_on_the_state_of_its_upper_one():
    class Counting(nn.StandardNormal):
        updates = 0

        def update(self, encoder, rows):
            self.updates += 1

        def epoch_state(self):
            return {"updates": torch.tensor(self.updates)}

        def load_epoch_state(self, state):
            self.updates = int(state["updates"])

        def reset(self):
            self.updates = 0

    prior, other = (nn.TwoLevelPrior(Counting(), 3, 4) for _ in range(2))
    prior.update(None, None)
    other.load_epoch_state(prior.epoch_state())
    assert other.upper.updates == 1
    prior.reset()
    assert prior.upper.updates == 0
