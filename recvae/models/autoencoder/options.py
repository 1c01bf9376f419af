"""Options of autoencoders that most users leave as they are: of the output layer, and of the training run.

Model files and checkpoints have the options under the keys and values of `file_key` and `file_values`. At the end, what
follows from them for some data, and what a checkpoint compares to be resumed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from scipy import sparse

from recvae.data.shards import Shards
from recvae.models.autoencoder.shape import FEW_ITEMS, LATENT_DIM, WIDE_CATALOGUE, WIDE_LATENT_DIM, Shape
from recvae.models.base.model import FitRun, Model
from recvae.models.base.params import flat_params, frozen_parameters, hyper
from recvae.nn.layers import PRECISIONS
from recvae.nn.likelihood import IMPLS, UNOBSERVED
from recvae.nn.samplers import SAMPLERS
from recvae.training.checkpoint import digest_rows
from recvae.training.parallel import STRATEGIES
from recvae.training.state import TrainConfig
from recvae.version import __version__

RATE, SLOW_RATE = 1e-3, 5e-4  # learning rates
MANY_ITEMS = 200_000  # above which the likelihood is sampled by default, and initial weights are random
AVERAGING, LONG = 0.5, 10  # epochs: the time constant of averages of weights, in runs of at least so many


@frozen_parameters
class OutputOptions:
    """The output layer of an autoencoder, which turns the decoder's hidden state into a logit for each item."""

    logits: str = hyper(
        "dot", "item logits: h W^T + b, or with cosines instead of inner products", choices=("dot", "cosine")
    )
    temperature: float = hyper(0.1, "divisor of the cosines", low=1e-3)
    unobserved: float = hyper(
        UNOBSERVED,
        "weight of the items that a user does not have in the Gaussian likelihood; the others weigh 1",
        low=1e-6,
    )
    item_biases: str = hyper(
        "auto",
        'initial biases of the items: "normal", N(0, .001^2) as in the paper; "popularity", the log of how many users '
        'have each item; "auto" is "popularity" for the multinomial likelihood, else "normal"',
        choices=("auto", "normal", "popularity"),
    )
    tied_embeddings: bool = hyper(
        False,
        "whether the input layer and the output layer share their weights (I, H): half the memory",
        file_key="tables",
        file_values={True: "tied", False: "separate"},
    )


@frozen_parameters
class TrainingOptions:
    """How an autoencoder is trained: regularisation, the implementation of the likelihood, precision, parallelism."""

    initial_weights: str = hyper(
        "auto",
        'of the item embeddings: "random", or "spectral", from the singular vectors of the training rows, which saves '
        'most of the epochs; "auto" is "spectral" for the multinomial likelihood and plain logits with up to '
        f'{MANY_ITEMS:,} items, else "random"',
        choices=("auto", "random", "spectral"),
    )
    weight_decay: float = hyper(0.0, "decoupled, as in AdamW, on all weights", low=0, search=[0.0, 0.001, 0.01, 0.1])
    max_grad_norm: float | None = hyper(
        None, "largest norm of the gradients of a step; longer ones are clipped", low=0, kind=float, optional=True
    )
    averaging: float | None = hyper(
        None,
        "time constant in epochs of the moving average of weights that a fit takes instead of the last ones; 0 takes "
        f"the last; None is {AVERAGING:g} with at least {LONG} epochs from spectral initial weights, else 0, and 0 "
        "where the likelihood is sampled",
        low=0,
        kind=float,
        optional=True,
    )
    stop_epoch: int | None = hyper(
        None,
        "epoch after which training stops, while schedules still span all `epochs`; for a best epoch that is known "
        "from another fit",
        low=1,
        kind=int,
        optional=True,
        file_key="stop_after",
    )
    impl: str = hyper(
        "auto",
        'how the likelihood is computed: "chunked" over all items, a block of users at a time; "sampled" over '
        'negatives drawn in each step; "reference" by the plain formula; "auto" is one of the first two, by the plan',
        choices=IMPLS,
        file_values={"reference": "dense", "chunked": "exact"},
    )
    num_negatives: int = hyper(
        4096,
        "negatives that a sampled likelihood draws in each step, in addition to the items of the users",
        low=1,
        file_key="candidates",
    )
    sampler: str = hyper("popularity", "distribution that the negatives are drawn from", choices=tuple(SAMPLERS))
    embedding_lr: float = hyper(
        3.0,
        "learning rate of the item embeddings where the likelihood is sampled, as a multiple of `learning_rate`",
        low=0,
        file_key="table_rate",
    )
    precision: str = hyper(
        "auto",
        'of the matrix products in training; "bfloat16" is faster on some hardware, which "auto" detects',
        choices=PRECISIONS,
        run_option=True,
    )
    parallel: str = hyper(
        "data",
        'how several processes train together: "data" parallel, each computes some users of every batch; "tensor" '
        "parallel, each holds the embeddings of some items, which need not fit in one process",
        choices=STRATEGIES,
        run_option=True,
    )


class DefaultEpochs(NamedTuple):
    """The defaults of `epochs`: from spectral weights on dense and on sparse data; from random weights; from spectral
    weights as a filter, and with few items, where an epoch is a single pass, if these differ.
    """

    dense: int
    sparse: int
    random: int
    filter: int | None = None
    few_items: int | None = None


def epochs_option(what: str, default: DefaultEpochs) -> Any:
    """The hyper-parameter `epochs` of an autoencoder: passes, or rounds of them."""
    on_sparse_data = "" if default.sparse == default.dense else f", {default.sparse} on sparse data"
    as_filter = "" if default.filter is None else f", {default.filter} where these give a spectral filter"
    few_items = "" if default.few_items is None else f", {default.few_items} of up to {FEW_ITEMS:,} items unless thin"
    return hyper(
        None,
        f"{what} over the training users; schedules scale with their number; None is {default.dense} from spectral "
        f"initial weights{on_sparse_data}{as_filter}{few_items}, {default.random} from random ones",
        low=1,
        kind=int,
        optional=True,
    )


def n_epochs(model: Any, shape: Shape) -> int:
    """The hyper-parameter `epochs` of an autoencoder, or its default for the start of its weights and the data."""
    return int(model.epochs or _usual_epochs(model, shape))


def _usual_epochs(model: Any, shape: Shape) -> int:
    default: DefaultEpochs = model._default_epochs
    if not starts_spectrally(model, shape.items):
        return default.random
    if default.filter is not None and model._starts_as_filter(shape):
        return default.filter
    if default.few_items is not None and shape.items <= FEW_ITEMS and not shape.is_thin:
        return default.few_items
    return default.sparse if shape.is_sparse else default.dense


def learning_rate_option(slow: str) -> Any:
    """The hyper-parameter `learning_rate` of an autoencoder. slow : where the lower default holds, in words"""
    return hyper(
        None,
        f"learning rate of Adam; None is {RATE:g}, or {SLOW_RATE:g} {slow}",
        low=0,
        kind=float,
        optional=True,
        search=[None, 0.0001, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005],
    )


def learning_rate(model: Any, shape: Shape) -> float:
    """The hyper-parameter `learning_rate` of an autoencoder, or its default for these data."""
    if model.learning_rate is not None:
        return float(model.learning_rate)
    return SLOW_RATE if model._learns_slowly(shape) else RATE


def latent_dim(model: Any, n_items: int) -> int:
    """The hyper-parameter `latent_dim` of an autoencoder, or its default for the start of its weights and the data."""
    if model.latent_dim is not None:
        return int(model.latent_dim)
    return WIDE_LATENT_DIM if n_items >= WIDE_CATALOGUE and starts_spectrally(model, n_items) else LATENT_DIM


def averaging(model: Any, shape: Shape, impl: str) -> float:
    """The hyper-parameter `averaging` of an autoencoder, or its default for this start and implementation."""
    if model.training.averaging is not None:
        return float(model.training.averaging)
    averaged = starts_spectrally(model, shape.items) and impl != "sampled" and n_epochs(model, shape) >= LONG
    return AVERAGING if averaged else 0.0


def train_config(model: Any, shape: Shape, batch_size: int, impl: str, seed: int) -> TrainConfig:
    """How to train a network with an autoencoder's parameters, on data of this shape."""
    return TrainConfig(
        epochs=n_epochs(model, shape),
        batch_size=batch_size,
        learning_rate=learning_rate(model, shape),
        weight_decay=model.training.weight_decay,
        beta=partial(model._beta, shape=shape),
        stop_epoch=model.training.stop_epoch,
        patience=model.patience,
        phases=model._phases(shape),
        max_grad_norm=model.training.max_grad_norm,
        precision=model.training.precision,
        averaging=averaging(model, shape, impl),
        seed=seed,
    )


def starts_from_popularity(model: Any) -> bool:
    """Whether an autoencoder's item biases start from the numbers of users."""
    biases = model.output.item_biases
    return biases == "popularity" or (biases == "auto" and model.likelihood == "multinomial")


def starts_spectrally(model: Any, n_items: int) -> bool:
    """Whether an autoencoder's item embeddings start from the singular vectors of its training rows."""
    if model.training.initial_weights != "auto":
        return bool(model.training.initial_weights == "spectral")
    return model.likelihood == "multinomial" and model.output.logits == "dot" and n_items <= MANY_ITEMS


def run_identity(model: Model, rows: sparse.csr_matrix | Shards, run: FitRun, sampled: bool) -> dict[str, Any]:
    """All that determines a training run on these rows, JSON-serialisable; `sampled`: whether negatives are."""
    params = flat_params(model, run_options=False)
    return {
        "recvae": __version__,
        "model": type(model).__name__,
        "parameters": {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()},
        "impl": "sampled" if sampled else "exact",  # the first version's name of "chunked"
        "rows": rows.fingerprint() if isinstance(rows, Shards) else digest_rows(rows),
        "validation users": None if run.valid is None else digest_rows(run.valid.fold_in, run.valid.held_out),
        "part": run.part,
    }
