"""The variational autoencoder: encoder, sampling from the posterior, decoder, and the two terms of the ELBO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.errors import NotSupportedError
from recvae.nn.encoders import Encoder, Posterior
from recvae.nn.layers import by_columns, dense_layers, gated_layers, linear, workspace
from recvae.nn.likelihood import Likelihood
from recvae.nn.priors import Prior
from recvae.nn.rng import CounterRNG
from recvae.utils.workers import USERS, cut, map_pieces

Part = Callable[[slice, Tensor], tuple[Tensor, ...]]  # a piece of the users and its input (n, H) -> outputs (n, ...)


class Decoder(Protocol):
    """A torch module z -> hidden state, with an output layer that maps hidden states to one logit per item.

    Likelihoods take the hidden state and the output layer's weight and bias, so that no B x I matrix of logits has to
    exist at once.
    """

    latent_dim: int  # K
    weight: nn.Parameter  # (I, H), a row for each item
    bias: nn.Parameter  # (I,)
    temperature: float | None  # of cosine logits; None for inner products, where `output` is (weight, bias)

    def __call__(self, z: Tensor) -> Tensor:
        """The last hidden state. (B, K) -> (B, H)"""
        ...

    @property
    def output(self) -> tuple[Tensor, Tensor]:
        """Weight (I, H) and bias (I,) of logits h W^T + b."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of all items. (B, H) -> (B, I)"""
        ...


class Elbo(NamedTuple):
    """The evidence lower bound of B users in its two terms: elbo = -nll - kl."""

    nll: Tensor  # (B,) -log p(x | z), z a draw from q(z | x)
    kl: Tensor  # (B,) KL(q(z | x) || p(z))
    kl_scale: Tensor | float = 1.0  # (B,) factor of each user's KL weight beta

    def loss(self, beta: float) -> Tensor:
        """The training loss: the mean over users of nll + beta * kl_scale * kl. -> scalar"""
        return (self.nll + beta * self.kl_scale * self.kl).mean()


class VAE(nn.Module):
    """A network of an encoder, a decoder, a likelihood of rows and a prior.

    Parameters
    ----------
    encoder
        q(z | x): `GaussianEncoder`, or any module with its signature.
    decoder
        z -> hidden state, with an output layer: `MLPDecoder`, or any module with its attributes.
    likelihood
        -log p(x | z) from hidden state and output layer: `nll`, `partial(nll, family="logistic")`, or your own
        function.
    prior
        p(z). None for a deterministic autoencoder, whose encoder returns points.
    kl_by_events
        Whether a user's KL weight is beta * n_u, where n_u is the sum of the row, instead of beta.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        likelihood: Likelihood,
        prior: Prior | None,
        kl_by_events: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.kl_by_events = kl_by_events

    def forward(self, batch: Batch, rng: CounterRNG) -> Elbo:
        """The terms of the ELBO for rows x: z ~ q(z | x), then log p(x | z) and KL(q(z | x) || p(z))."""
        hidden, kl = self._codes(batch, rng)  # (B, H), (B,)
        nll = self.likelihood(hidden, *self.decoder.output, batch)  # (B,)
        return Elbo(nll, kl, batch.sum(batch.values) if self.kl_by_events else 1.0)

    def _codes(self, batch: Batch, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        """The decoder's hidden state at a draw of z, and the KL term. -> (B, H), (B,)"""

        def of(posterior: Posterior, rng: CounterRNG, batch: Batch) -> tuple[Tensor, Tensor]:
            z = posterior.sample(rng)  # (B, K)
            hidden = self.decoder(z)  # (B, H)
            if self.prior is None:
                return hidden, hidden.new_zeros(len(hidden))
            return hidden, self.prior(posterior, z, batch, self.encoder)

        bag, posterior_of = getattr(self.encoder, "bag", None), getattr(self.encoder, "posterior", None)
        if bag is None or posterior_of is None or batch.offsets.device.type != "cpu":
            return of(self.encoder(batch, rng), rng, batch)
        first = bag(batch, rng)  # (B, H), from the table of all items

        # the layers between the tables of all items: in pieces of the batch, on several cores
        def piece(rows: slice, first: Tensor) -> tuple[Tensor, Tensor]:
            piece_rng = rng.of(rows)
            return of(posterior_of(first, piece_rng), piece_rng, batch.part(rows))

        hidden, kl = by_users(piece, first, list(self.parameters()), cut(len(batch), USERS))
        return hidden, kl

    def scores(self, batch: Batch) -> Tensor:
        """Logits of all items, without dropout or sampling. -> (B, I)"""
        return self.decoder.logits(self.hidden(batch))

    def hidden(self, batch: Batch, eps: Tensor | None = None) -> Tensor:
        """The decoder's last hidden state, from the posterior's mean or from mu + sigma * eps (B, K). -> (B, H)"""
        posterior = self.encoder(batch)
        return self.decoder(posterior.mean if eps is None else posterior.reparameterize(eps))

    def hidden_from_prior(self, n: int, generator: np.random.Generator) -> Tensor:
        """The decoder's last hidden state at n draws from the prior. -> (n, H)"""
        shape = n, self.decoder.latent_dim
        return self.decoder(self._required_prior().sample(shape, generator, self.encoder))

    def divergence(self, posterior: Posterior) -> Tensor:
        """KL(q(z | x) || p(z)) without random draws, see `Prior.divergence`. -> (B,)"""
        return self._required_prior().divergence(posterior, self.encoder)

    def _required_prior(self) -> Prior:
        if self.prior is None:
            raise NotSupportedError("Expected a network with a prior, got a deterministic autoencoder.")
        return self.prior


class MLPDecoder(nn.Module):
    """z -> hidden state by tanh or `gated` layers, and the output layer that maps it to one logit per item.

    Parameters
    ----------
    latent_dim
        K.
    hidden_dims
        Widths of the hidden layers; without any, logits are linear in z.
    n_items
        I.
    gated
        Gated layers h -> (W h + b) * sigmoid(V h + c) instead of tanh ones.
    temperature
        If given as t, logits are cos(h, W_i) / t + b_i: weights have unit norm, hidden states norm 1 / t.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dims: Sequence[int],
        n_items: int,
        *,
        gated: bool = False,
        temperature: float | None = None,
    ):
        super().__init__()
        dims = [latent_dim, *hidden_dims]
        self.latent_dim = latent_dim
        self.hidden = gated_layers(dims) if gated else dense_layers(dims)
        self.activation = F.glu if gated else torch.tanh
        self.temperature = temperature
        self.weight = nn.Parameter(torch.full((n_items, dims[-1]), torch.nan))  # (I, H), for `initialize`
        self.bias = nn.Parameter(torch.full((n_items,), torch.nan))  # (I,)

    def forward(self, z: Tensor) -> Tensor:  # (B, K) -> (B, H)
        for layer in self.hidden:
            z = self.activation(layer(z))
        return z if self.temperature is None else F.normalize(z) / self.temperature

    @property
    def output(self) -> tuple[Tensor, Tensor]:
        """Weight (I, H) and bias (I,) of logits h W^T + b, the weight of unit rows if there is a temperature."""
        return self.weight if self.temperature is None else unit_rows(self.weight), self.bias

    @property
    def linear(self) -> bool:
        """Whether logits are z W^T + b."""
        return not len(self.hidden) and self.temperature is None

    def prepare_for_inference(self) -> None:
        """Store the output weights in the layout that scores fastest. Do not train the layer after that."""
        self.weight = nn.Parameter(by_columns(self.weight.detach()))

    def logits(self, hidden: Tensor) -> Tensor:  # (B, H) -> (B, I)
        """h W^T + b."""
        return linear(hidden, *self.output)


def unit_rows(weight: Tensor) -> Tensor:
    """Each row (I, H) divided by its Euclidean norm, a row of zeros left as it is."""
    unit: Tensor = _UnitRows.apply(weight)  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    """F.normalize with one pass over the weights forward and backward: autograd's takes as long as a training step."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp(min=1e-12)
        unit = weight / norms
        ctx.save_for_backward(unit, norms)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The component of the gradient orthogonal to the row, divided by the norm of the row."""
        unit, norms = ctx.saved_tensors
        along = torch.bmm(grad[:, None], unit[:, :, None])[:, :, 0]  # (I, 1)
        out = workspace("gradient of weights of any norm", grad.shape, grad.dtype, grad.device, for_step=True)
        return torch.addcmul(grad, unit, along, value=-1, out=out).div_(norms)


# a part of a network on pieces of a batch, in parallel ----------------------------------------------------------------


def by_users(function: Part, x: Tensor, parameters: Sequence[Tensor], pieces: Sequence[slice]) -> tuple[Tensor, ...]:
    """The outputs of a function for all users, computed for pieces of them in parallel.

    Gradients of the parameters are summed in the order of the pieces, so that they do not depend on the number of
    threads.

    Parameters
    ----------
    function
        It may use the parameters, and nothing else that needs a gradient.
    x
        (B, H).
    pieces
        Slices of the B users, in order.

    Returns
    -------
    tuple of Tensor
        (B, ...) each.
    """
    if len(pieces) == 1:
        return function(pieces[0], x)
    if not torch.is_grad_enabled():
        return _joined(map_pieces(lambda rows: function(rows, x[rows]), pieces))
    outputs: tuple[Tensor, ...] = _ByUsers.apply(function, pieces, x, *parameters)  # type: ignore[no-untyped-call]
    return outputs


def _joined(outputs: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


class _ByUsers(torch.autograd.Function):
    """Keeps a graph for each piece, from a detached copy of its input."""

    @staticmethod
    def forward(ctx: Any, function: Part, pieces: Sequence[slice], x: Tensor, *parameters: Tensor) -> Any:
        def piece(rows: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
            with torch.enable_grad():
                leaf = x[rows].detach().requires_grad_(x.requires_grad)
                return leaf, function(rows, leaf)

        ctx.pieces, ctx.graphs = pieces, map_pieces(piece, pieces)
        ctx.save_for_backward(*parameters)
        first, joined = ctx.graphs[0][1], _joined([outputs for _, outputs in ctx.graphs])
        ctx.mark_non_differentiable(*(out for out, of in zip(joined, first, strict=True) if not of.requires_grad))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [parameter for parameter in ctx.saved_tensors if parameter.requires_grad]

        def piece(k: int) -> list[Tensor | None]:
            rows, (leaf, outputs) = ctx.pieces[k], ctx.graphs[k]
            pairs = [(out, grad[rows]) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
            leaves = [leaf, *wanted] if leaf.requires_grad else wanted
            outs, their_grads = zip(*pairs, strict=True)
            with torch.enable_grad():
                seed = _WithGradients.apply(their_grads, *outs)  # type: ignore[no-untyped-call]
            # the graph is kept: there may be another backward pass
            gradients = torch.autograd.grad(seed, leaves, retain_graph=True, allow_unused=True)
            found: list[Tensor | None] = list(gradients)
            return found if leaf.requires_grad else [None, *found]

        by_piece = map_pieces(piece, range(len(ctx.pieces)))
        of_x = (
            torch.cat([of_leaf for of_leaf, *_ in by_piece if of_leaf is not None]) if ctx.needs_input_grad[2] else None
        )
        sums = iter([_sum(parts) for parts in zip(*(rest for _, *rest in by_piece), strict=True)])
        return None, None, of_x, *(next(sums) if parameter.requires_grad else None for parameter in ctx.saved_tensors)


class _WithGradients(torch.autograd.Function):
    """A scalar whose gradients by some outputs are given: torch's own way to give them imports sympy, for .4 s."""

    @staticmethod
    def forward(ctx: Any, grads: tuple[Tensor, ...], *outputs: Tensor) -> Tensor:
        ctx.grads = grads
        return outputs[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The given gradients: that of the scalar is 1."""
        return None, *ctx.grads


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The sum in the order of the parts; None where no part depends on the parameter."""
    given = [part for part in parts if part is not None]
    if len(given) < 2:
        return given[0] if given else None
    total = given[0] + given[1]  # a new tensor: autograd may give one, or an expanded one, for several parameters
    for part in given[2:]:
        total.add_(part)
    return total
