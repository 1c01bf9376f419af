"""The training loop of a VAE: one step, and the epochs around it. It does not depend on models or metrics."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.data.batches import Batch, DeviceRows, RowSource
from recvae.data.rows import LARGEST, check_rows
from recvae.data.shards import Shards, ShuffledRows
from recvae.errors import InvalidDataError, TrainingError
from recvae.nn.layers import Workspace, in_bfloat16, reuse_workspace
from recvae.nn.optim import AdamW
from recvae.nn.rng import CounterRNG, fold_in, initialize
from recvae.nn.samplers import Sampler
from recvae.nn.vae import VAE, Elbo
from recvae.training.callbacks import Callback, Epoch, FitInfo, as_callbacks, dispatch
from recvae.training.checkpoint import Checkpoint, as_checkpoint, digest_rows, resumed
from recvae.training.checkpoint_state import Size
from recvae.training.parallel import ParallelStrategy
from recvae.training.progress import Live
from recvae.training.state import TrainConfig, TrainState, best_epoch
from recvae.utils.finite import all_finite
from recvae.utils.workers import Workers, timed, use_workers
from recvae.version import __version__

logger = logging.getLogger(__name__)

ADVICE = 'lower learning_rate, set max_grad_norm, or look for huge values in the data (values="log1p" tames counts)'


class Trainer:
    """Trains a network by minimising `loss`, step by step.

    Parameters
    ----------
    network : nn.Module
        Already on its device. `network(batch, rng)` returns an `Elbo`: the terms nll and kl of B users, each (B,).
        `recvae.nn.VAE` is one. NaN weights, as new layers of `recvae.nn` have them, are initialised. A `Phase` names
        its child modules "encoder", "decoder" and "prior"; `prior.update` is called before each epoch.
    config : TrainConfig
    loss : callable
        (output of the network, beta) -> scalar to minimise, a mean over users. By default nll + beta * kl.
    optimizers : sequence of torch.optim.Optimizer, optional
        By default AdamW on all parameters.
    sampler : Sampler, optional
        Draws the negatives of each step, for a sampled likelihood.
    strategy : ParallelStrategy
        How processes divide a step: data parallel or tensor parallel. By default there is a single process.
    title : str
        Name of the model in progress bars and logs.
    part : str
        Name of the run in the records of epochs and in the checkpoint folder.

    Examples
    --------
    >>> trainer = Trainer(network, TrainConfig(epochs=10))
    >>> history = trainer.fit(rows)
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig | None = None,
        *,
        loss: Callable[[Elbo, float], Tensor] = Elbo.loss,
        optimizers: Sequence[torch.optim.Optimizer] | None = None,
        sampler: Sampler | None = None,
        strategy: ParallelStrategy | None = None,
        title: str | None = None,
        part: str = "network",
    ):
        self.network, self.config, self.loss, self.sampler = network, config or TrainConfig(), loss, sampler
        self.strategy = strategy or ParallelStrategy()
        self.title, self.part = title or type(network).__name__, part
        for phase in self.config.phases:
            phase.check(network)
        initialize(network, self.config.seed, only_missing=True)
        if optimizers is None:
            rate, decay = self.config.learning_rate, self.config.weight_decay
            optimizers = [AdamW(network.parameters(), rate, decay)]
        self.state = TrainState(network, optimizers, self.config.seed)
        self._device, self._ranks = self.state.device, self.strategy.data_parallel_group
        in_16_bits = in_bfloat16(self.config.precision, self._device)
        # without its cache, which is each thread's own: gradients of a weight that is used twice, as HVamp's are, would
        # be summed in bfloat16 or in float32, depending on the thread
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=in_16_bits, cache_enabled=False)
        self._workspace = Workspace()

    def step(self, batch: Batch, beta: float | None = None) -> Tensor:
        """Make one training step.

        Parameters
        ----------
        batch : Batch
            The B users of the whole step; each rank takes its share.
        beta : float, optional
            Weight of the KL term; by default its value at the start of a run.

        Returns
        -------
        Tensor
            (3,), sums over this rank's users of nll, kl and loss. It stays on the device: no step waits for it.
        """
        network, state, ranks = self.network, self.state, self._ranks
        epoch, step = len(state.history), len(state.losses)  # from 0
        self._workspace.begin_step()  # the buffers of the previous step may be overwritten
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        # noise depends on this key and the index of the user only, not on how users are grouped into batches
        key = fold_in(state.seed, epoch, state.pass_index)
        if self.sampler is not None:  # shared negatives, weighted to represent the whole catalogue
            batch = replace(batch, negatives=self.sampler.draw(batch, fold_in(key, 0, step)))
        users = batch
        if self.strategy.communicator.size > 1:
            self.strategy.communicator.current_step = f"step {step + 1} of epoch {epoch + 1}"  # for errors
            users = ranks.shard_batch(batch)  # this rank's, all of them in tensor parallel training
        losses = torch.zeros(3, device=self._device)
        if len(users):  # a rank may have none in a small batch
            with self._autocast:  # matrix products may be in bfloat16, sums over items or users are not
                elbo = network(users, CounterRNG.for_batch(key, users))  # nll (B,), kl (B,)
            loss = self.loss(elbo, self.config.beta_at(0.0) if beta is None else beta)  # mean of nll + beta * kl
            loss.backward()  # gradients of large tables may be sparse over rows
            losses = torch.stack([elbo.nll.sum(), elbo.kl.sum(), loss * len(users)]).detach().float()
        if ranks.size > 1:  # gradient of the mean over all users: a rank weighs by its number of users
            ranks.all_reduce_gradients(network.parameters(), len(users) / len(batch))
        if self.config.max_grad_norm is not None:  # after the sum over ranks: it is the norm of the whole step
            self.strategy.clip_grad_norm(network, self.config.max_grad_norm)
        for optimizer in state.optimizers:
            optimizer.step()
        state.losses.append(losses)
        return losses

    def fit(
        self,
        rows: sparse.csr_matrix | Shards,
        *,
        validate: Callable[[], float] | None = None,
        metric: str = "validation metric",
        callbacks: Iterable[Callback | Callable[[Epoch], object]] = (),
        checkpoint: Checkpoint | str | Path | None = None,
        show_progress: bool = False,
    ) -> list[Epoch]:
        """Train for the epochs of the config, or until patience runs out. Keeps the best weights.

        Parameters
        ----------
        rows : csr_matrix of shape (users, items), or Shards
            A matrix is moved to the network's device, its values divided by their mean.
        validate : callable, optional
            () -> metric, higher is better; called after each epoch, with the network in eval mode.
        metric : str
            Name of the metric that `validate` returns.
        callbacks : iterable of Callback, or of functions of an Epoch
        checkpoint : Checkpoint or path of a folder, optional
            Folder of checkpoints; the same call, after an interruption, resumes from it.
        show_progress : bool
            Show a progress bar, in a terminal or a notebook.

        Returns
        -------
        list of Epoch
            The record of each epoch.

        Raises
        ------
        InvalidDataError
            For rows without events, or of another number of items than a `VAE` has.
        TrainingError
            When a loss or a weight is not finite: at the end of the epoch, so that no step waits for the device.
        """
        rows = self._checked(rows)
        source, callback_list = rows_on_device(rows, self.state.device), as_callbacks(callbacks)
        info = FitInfo(
            model=self.title,
            verb="fit",
            parameters=self._settings(),
            values="raw",
            users=len(source),
            items=rows.shape[1],
            events=rows.nnz,
            valid_users=None,
            metric=None if validate is None else metric,
        )
        if not self.strategy.communicator.is_main_process:
            callback_list = []  # one rank speaks for all
        with dispatch(callback_list, info):
            return self.run(
                source,
                validate=validate,
                metric=metric,
                callbacks=callback_list,
                checkpoint=as_checkpoint(checkpoint),
                identity=lambda: self._identity(rows),
                show_progress=show_progress,
            )

    def run(
        self,
        rows: RowSource,
        *,
        identity: Callable[[], dict[str, Any]],
        validate: Callable[[], float] | None = None,
        metric: str = "validation metric",
        callbacks: Sequence[Callback] = (),
        checkpoint: Checkpoint | None = None,
        show_progress: bool = False,
    ) -> list[Epoch]:
        """The training loop of `fit`, without `on_fit_start` and `on_fit_end`: one fit may have several runs.

        Parameters
        ----------
        rows : RowSource
            On the network's device.
        identity : callable
            () -> everything that determines the run, JSON-serialisable: a checkpoint of another run is refused.
        validate
            As in `fit`.
        metric
            As in `fit`.
        callbacks
            As in `fit`.
        checkpoint
            As in `fit`.
        show_progress
            As in `fit`.

        Returns
        -------
        list[Epoch]
            The record of each epoch.
        """
        config, state, strategy = self.config, self.state, self.strategy
        size = Size(len(rows), config.last_epoch, config.steps_per_epoch(len(rows)))
        identity = cache(identity)
        if strategy.communicator.size > 1:
            for name, value in identity().items():
                strategy.communicator.assert_same_on_all_ranks(name, json.dumps(value))
        is_main = strategy.communicator.is_main_process
        users = size.users * len(config.passes)
        live = Live(self.title, size.epochs, size.steps, users, metric, show_progress and is_main)
        message = "%d epochs of %d steps, %d users in a step, on %s, seed %d"
        self._log(message, size.epochs, size.steps, config.users_per_step(size.users), self._device, state.seed)
        with (
            self._parallel() as workers,
            live,
            resumed(checkpoint, self.part, identity, state, strategy, size) as writer,
        ):
            listeners: list[Callback] = [live, *callbacks] if is_main else []
            if workers is not None:
                workers.tuner.begin()  # its last units may be steps of another network
            while not state.is_over(config):
                started, steps_before = time.perf_counter(), state.step
                beta = self._run_epoch(rows, [*listeners, writer] if writer else listeners)
                speed = users * (1 - steps_before / size.steps) / (time.perf_counter() - started)
                nll, kl, loss = (self._checked_losses().sum(0) / users).tolist()
                with state.averaged():
                    valid = None if validate is None else strategy.validate(validate)
                    _check_metric(valid, state.epoch + 1)
                    best = None if valid is None else state.keep_best(valid)
                    seconds = time.perf_counter() - started
                    epoch = Epoch(state.epoch + 1, nll, kl, loss, beta, valid, seconds, best, speed, self.part)
                    state.history.append(epoch)
                    state.losses = []
                    self._log("%s", epoch)
                    if epoch.epoch == 1 and workers is not None:
                        self._log("%d of %d cores are used: %s", *workers.state())
                    for callback in listeners:
                        callback.on_epoch_end(epoch)
                if writer:  # it writes the weights of the last step as such
                    writer.on_epoch_end(epoch)
            if writer:
                writer.write()
        self._log("done: weights of epoch %d of %d", best_epoch(state.history).epoch, state.epoch)
        self._finish()
        return state.history

    def _run_epoch(self, rows: RowSource, callbacks: Sequence[Callback]) -> float:
        """Run the remaining passes of the current epoch. -> beta of the last step"""
        config, state, n_users = self.config, self.state, len(rows)
        n_steps, epoch, beta = config.steps_per_epoch(n_users), state.epoch, math.nan
        steps_per_pass = n_steps // len(config.passes)
        if state.step == 0:
            self.start_epoch(rows)
        if state.step == n_steps:  # resumed after the last step: only the epoch's end is left
            beta = config.beta_at((epoch + (n_steps - 1) / n_steps) / config.epochs)
        for index in range(len(config.passes)):
            first = (
                state.step - index * steps_per_pass
            )  # first step of this pass; above 0 if the run was resumed within it
            if first >= steps_per_pass:
                continue
            order = fold_in(fold_in(state.seed, epoch, index))
            with self.in_pass(index):
                for batch in rows.batches_of(order, config.users_per_step(n_users), first):
                    beta = config.beta_at((epoch + state.step / n_steps) / config.epochs)  # by the share of the run
                    with timed(len(batch)):
                        self.step(batch, beta)
                    state.update_averages(config, n_steps)
                    for callback in callbacks:
                        callback.on_step_end(epoch + 1, state.step)
        return beta

    def batches(self, rows: sparse.csr_matrix | Shards) -> Iterator[Batch]:
        """Batches of a pass over all rows, for steps by hand."""
        source = rows_on_device(self._checked(rows), self.state.device)
        key = fold_in(self.state.seed, self.state.epoch, self.state.pass_index)
        return source.batches_of(fold_in(key), self.config.users_per_step(len(source)))

    def start_epoch(self, rows: RowSource) -> None:
        """Update the prior on all users, encoded by the current encoder: RecVAE's keeps their posteriors."""
        prior = getattr(self.network, "prior", None)
        if prior is not None:
            prior.update(self.network.encoder, rows)

    @contextmanager
    def in_pass(self, index: int = 0) -> Iterator[None]:
        """In this context, steps belong to one pass of the epoch: the parts in its phase are trained, others frozen.

        Steps reuse the memory of the steps before. Afterwards the network is in eval mode.
        """
        self.state.pass_index = index
        self.config.passes[index].apply(self.network)
        try:
            with self._parallel(), reuse_workspace() as self._workspace:
                yield
        finally:
            self._workspace = Workspace()  # releases the buffers
        self.network.eval()

    def _checked(self, rows: sparse.csr_matrix | Shards) -> sparse.csr_matrix | Shards:
        """Raise InvalidDataError for rows without events, or of another number of items than a VAE has."""
        if not isinstance(rows, Shards):
            decoder: Any = self.network.decoder if isinstance(self.network, VAE) else None
            is_whole = decoder is not None and self.strategy.communicator.size == 1
            rows = check_rows(rows, len(decoder.bias) if is_whole else None, convert=True)
        if not rows.nnz:
            raise InvalidDataError(f"Expected at least one event to learn from, got rows of {rows.shape} without any.")
        return rows

    def _parallel(self) -> AbstractContextManager[Workers | None]:
        """On a CPU, the context in which the pieces of steps are computed in parallel: that of a whole fit, if any."""
        return use_workers() if self._device.type == "cpu" else nullcontext()

    def _checked_losses(self) -> Tensor:
        """Copy the losses of the epoch to the host in one transfer: sums over the users of all ranks. -> (S, 3)

        Raises TrainingError on all ranks for losses that are not finite, and for weights that are not finite or too
        large to be squared: the update of the last step is not in any loss.
        """
        epoch = self.state.epoch + 1
        losses = self.strategy.reduce_losses(torch.stack(self.state.losses).cpu())
        wrong_steps = (~losses[:, 2].isfinite()).nonzero()[:, 0].tolist()
        if wrong_steps:
            first = wrong_steps[0]
            raise TrainingError(
                f"Expected a finite loss, got {losses[first, 2].item()} in step {first + 1} of {len(losses)} of epoch "
                f"{epoch}; {ADVICE}."
            )
        wrong = [name for name, weight in self.network.named_parameters() if not all_finite(weight, LARGEST)]
        if self.strategy.communicator.all_reduce_max(torch.tensor([float(bool(wrong))])).item():
            raise TrainingError(
                f"Expected finite weights of at most {LARGEST:g} after epoch {epoch}, got others in "
                f"{wrong[0] if wrong else 'the part of another rank'}; {ADVICE}."
            )
        return losses

    def _log(self, message: str, *values: object) -> None:
        """Log on the main process only."""
        if self.strategy.communicator.is_main_process:
            logger.info("%s: " + message, self.title, *values)

    def _finish(self) -> None:
        self.state.finish()
        prior = getattr(self.network, "prior", None)
        if prior is not None:
            prior.reset()  # drops data of individual users

    def _settings(self) -> dict[str, Any]:
        """The config, JSON-serialisable: a function `beta` is given by its name."""
        config = self.config
        settings = {option.name: getattr(config, option.name) for option in fields(config)}
        beta = getattr(config.beta, "__name__", "beta") if callable(config.beta) else config.beta
        return settings | {"beta": beta, "phases": [[list(phase.trainable), phase.passes] for phase in config.phases]}

    def _identity(self, rows: sparse.csr_matrix | Shards) -> dict[str, Any]:
        """All that determines a run of `fit`; a function `beta` is given by its values at eleven points."""
        return {
            "recvae": __version__,
            "model": self.title,
            "parameters": self._settings() | {"beta": [self.config.beta_at(tenth / 10) for tenth in range(11)]},
            "rows": rows.fingerprint() if isinstance(rows, Shards) else digest_rows(rows),
            "part": self.part,
        }


def _check_metric(metric: float | None, epoch: int) -> None:
    """Raise TrainingError for a validation metric that is not a number."""
    if metric is not None and not math.isfinite(metric):
        raise TrainingError(
            f"Expected a finite metric on validation users, got {metric} after epoch {epoch}; look for users without "
            f"held-out items."
        )


def rows_on_device(rows: sparse.csr_matrix | Shards, device: torch.device) -> RowSource:
    """Training rows, scaled to a mean value of 1: with counts, the likelihood would outgrow the KL term.

    The encoder reads rows at unit norm, so that scoring needs no scale.
    """
    if isinstance(rows, Shards):
        return ShuffledRows(rows, device, scale=1 / rows.mean_value())
    return DeviceRows(rows * np.float32(1 / rows.data.mean(dtype=np.float64)), device)
