"""What models trained by gradient share: a recipe for the network and the schedule, and the way through the loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.batches import DeviceRows
from recvae.errors import InvalidParameterError, NotFittedError
from recvae.evaluation import evaluate_ranker
from recvae.nn import LIKELIHOODS, VAE
from recvae.nn.layers import initialize
from recvae.nn.likelihood import UNOBSERVED
from recvae.nn.products import PRECISIONS, in_bfloat16
from recvae.nn.rough import RoughLogits
from recvae.nn.vae import Likelihood
from recvae.params import fitted, hyper, parameters
from recvae.progress import bar
from recvae.recommender import FitRun, Recommender
from recvae.recommender.explain import by_leaving_out
from recvae.recommender.similar import cosines
from recvae.rows import transform_values
from recvae.spaces import log
from recvae.split import Holdout
from recvae.topk import Rough, Scorer, rank
from recvae.train import WHOLE, Epoch, Phase, best_epoch, train

MANY = 256  # users from which on it pays to prepare the output layer for rough scores


@parameters
class Autoencoder(Recommender):
    """Base of models that are one `VAE` network trained by Adam. `history_` (not saved) tells how it went."""

    likelihood: str = hyper("multinomial", "distribution of a row, given z", choices=tuple(LIKELIHOODS))
    unobserved: float = hyper(
        UNOBSERVED,
        "of the Gaussian likelihood: confidence in the items that a user does not have, to 1 in the others",
        low=1e-6,
    )
    epochs: int = hyper(50, "passes over the training users; schedules stretch with them", low=1)
    batch_size: int | None = hyper(
        None,
        "users in a step; by default a twentieth of the training users, at most 500, for enough steps on small data",
        low=1,
        kind=int,
        optional=True,
        search=[None, 50, 100, 200, 500],
    )
    learning_rate: float = hyper(1e-3, "of Adam, as in the paper", low=0, search=log(1e-4, 1e-2))
    weight_decay: float = hyper(
        0.0, "decoupled weight decay of AdamW, on all weights", low=0, search=[0.0, 0.001, 0.01, 0.1]
    )
    max_grad_norm: float | None = hyper(
        None, "scale the gradient of a step down to this norm where it is longer", low=0, kind=float, optional=True
    )
    stop_after: int | None = hyper(
        None,
        "stop after so many of the `epochs`, schedules unchanged: for a fit without validation users, when the best "
        "epoch is known",
        low=1,
        kind=int,
        optional=True,
    )
    patience: int | None = hyper(
        None,
        "with validation users, stop after so many epochs without a better NDCG@100",
        low=1,
        kind=int,
        optional=True,
    )
    random_state: int | None = hyper(
        None,
        "seed of weights, order, dropout and noise; None draws one",
        low=0,
        high=2**32 - 1,
        kind=int,
        optional=True,
    )
    device: str = hyper("auto", 'torch device; "auto" takes a GPU if there is one', run_option=True)

    precision: str = hyper(
        "auto",
        'of the matrix products in training; "bfloat16" is faster where the hardware has it, which "auto" finds out',
        choices=PRECISIONS,
        run_option=True,
    )

    network_: VAE = fitted()
    history_: list[Epoch] = fitted()
    validates = True

    @abstractmethod
    def _network(self, n_items: int) -> VAE:
        """The network for `n_items`, its weights yet to be initialised."""

    def _likelihood(self, precision: str | None = None) -> Likelihood:
        """The likelihood of a row, its products in that precision, or in the one asked for."""
        options = {"unobserved": self.unobserved} if self.likelihood == "gaussian" else {}
        return partial(LIKELIHOODS[self.likelihood], precision=precision or self.precision, **options)

    @property
    def best_epoch_(self) -> int:
        """The epoch (from 1) whose weights were kept; only for models that have been fitted here."""
        if not getattr(self, "history_", []):
            raise NotFittedError(f"Expected a {type(self).__name__} fitted in this process; call fit first.")
        return best_epoch(self.history_).epoch

    def chosen_params(self) -> dict[str, Any]:
        """As for every model, with the number of epochs that was best."""
        return super().chosen_params() | {"stop_after": self.best_epoch_}

    def _beta(self, progress: float) -> float:
        """Weight of the KL term after a share of the run."""
        return 0.0

    def _phases(self) -> Sequence[Phase]:
        """What an epoch is made of."""
        return (WHOLE,)

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        # an event weighs 1 in the mean: with counts, the likelihood would else outgrow the KL term that beta weighs.
        # The encoder reads rows at unit norm, so that in scoring nothing has to be divided.
        rows = rows * np.float32(1 / rows.data.mean(dtype=np.float64))
        network, optimizer, generator = self._untrained(rows.shape[1])
        with bar(run.show_progress) as progress:
            task = progress.add_task(
                f"training {type(self).__name__}", total=min(self.epochs, self.stop_after or self.epochs), note=""
            )

            def report(epoch: Epoch) -> None:
                progress.update(task, completed=epoch.epoch, note=_note(epoch))
                if run.callback is not None:
                    run.callback(epoch.epoch - 1, epoch.seconds, epoch.loss)
                if run.on_epoch is not None:
                    run.on_epoch(epoch)

            history = train(
                network,
                DeviceRows(rows, generator.device),
                optimizer,
                generator,
                epochs=self.epochs,
                stop_after=self.stop_after,
                batch_size=int(self.batch_size or min(500, -(-rows.shape[0] // 20))),
                beta=self._beta,
                phases=self._phases(),
                max_grad_norm=self.max_grad_norm,
                precision=self.precision,
                validate=None if run.valid is None else partial(_validate, network, run.valid, run.values),
                patience=self.patience,
                callbacks=[report],
            )
        return {"network_": network.eval(), "history_": history}

    def _untrained(self, n_items: int) -> tuple[VAE, torch.optim.Optimizer, torch.Generator]:
        """What training starts from, on the model's device."""
        device = _device(self.device)
        generator = torch.Generator(device)
        generator.seed() if self.random_state is None else generator.manual_seed(int(self.random_state))
        network = self._network(n_items).to(device)
        initialize(network, generator)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        return network, optimizer, generator

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.network_.state_dict())

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        network = self._network(n_items)
        network.load_state_dict(tensors)
        return {"network_": network.to(_device(self.device)).eval(), "history_": []}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return network_scores(self.network_, rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        with torch.no_grad():
            return cosines(self.network_.decoder.output[0], items)

    def _user_vectors(self, rows: sparse.csr_matrix) -> Tensor:
        device = self.network_.decoder.weight.device
        with torch.no_grad():
            mean: Tensor = self.network_.encoder(DeviceRows(rows, device).all()).mean
        return mean

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        return by_leaving_out(self, row, item)

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return _scorer(self.network_, len(users))


def network_scores(network: VAE, rows: sparse.csr_matrix) -> Tensor:
    """Scores of all items for rows, on the network's device. -> (B, I)"""
    device = network.decoder.weight.device
    with torch.no_grad():
        return network.scores(DeviceRows(rows, device).all())


def _scorer(network: VAE, n_users: int) -> Scorer:
    """What ranks by the network's scores: for many users roughly at first, where that is faster."""
    weight, bias = (part.detach() for part in network.decoder.output)
    # on a CPU alone: a GPU may sum in bfloat16 too, which the bound does not know of
    if n_users < MANY or weight.device.type != "cpu" or not in_bfloat16("auto", weight.device):
        return lambda rows, _: network_scores(network, rows)
    logits = RoughLogits(weight, bias)

    def score(rows: sparse.csr_matrix, _: slice) -> Rough:
        with torch.no_grad():
            return logits(network.hidden(DeviceRows(rows, weight.device).all()))

    return score


def _validate(network: VAE, valid: Holdout, values: str) -> float:
    """NDCG@100 on validation users."""

    def ranker(_: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
        return rank(_scorer(network, rows.shape[0]), transform_values(rows, values), N)[0]

    return evaluate_ranker(ranker, valid, ["ndcg@100"])["ndcg@100"].mean


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidParameterError(f"Expected a device that is here, got device={name!r}: {reason}") from error


def _note(epoch: Epoch) -> str:
    found = "" if epoch.valid is None else f"  NDCG@100 {epoch.valid:.4f}"
    return f"ELBO {epoch.elbo:.1f} = -{epoch.nll:.1f} - {epoch.kl:.1f}{found}"
