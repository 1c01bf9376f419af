"""The training loop. It knows no models and no metrics: a network gives ELBO terms, a function validates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from recvae.data.batches import Batch, RowSource
from recvae.nn.layers import in_bfloat16, reuse_workspace
from recvae.nn.rng import CounterRNG, fold_in
from recvae.nn.samplers import Sampler
from recvae.nn.vae import VAE
from recvae.training.callbacks import Callback, Epoch
from recvae.training.finite import check_losses, check_metric, check_weights
from recvae.training.parallel import ParallelStrategy


@dataclass(frozen=True)
class Phase:
    """Passes over the users in which a part of the network learns and the others stay, without dropout in them."""

    learns: tuple[str, ...] = ("encoder", "decoder", "prior")
    passes: int = 1

    def begin(self, network: nn.Module) -> None:
        """Make the parts learn, and stop the others."""
        for learns in (False, True):  # in this order: what two parts share learns with either
            for name, part in network.named_children():
                if (name in self.learns) is learns:
                    part.train(learns).requires_grad_(learns)


WHOLE = Phase()


@dataclass(frozen=True)
class Plan:
    """How to train: what stays the same from the first step to the last.

    Attributes
    ----------
    epochs, stop_after
        How long the run is by which `beta` goes, and after which of its epochs to end it early.
    beta : Callable[[float], float]
        Share of the run done, in [0, 1) -> weight of the KL term.
    phases : Sequence[Phase]
        What an epoch is made of, one after the other.
    max_grad_norm : float or None
        Scale the gradient of a step down to this norm where it is longer.
    precision : str
        Of the products within the network, not of weights, noise and KL term.
    validate : Callable[[], float] or None
        () -> a number that is better when higher, called after each epoch with the network in eval mode.
    patience : int or None
        Stop after so many epochs in a row without a better one; None never stops.
    sampler : Sampler or None
        Draws what a sampled likelihood looks at; None for all items.
    strategy : ParallelStrategy
        The ranks that make each step together.
    part : str
        What is trained, as the records of its epochs say it.
    """

    epochs: int
    batch_size: int
    beta: Callable[[float], float]
    stop_after: int | None = None
    phases: Sequence[Phase] = (WHOLE,)
    max_grad_norm: float | None = None
    precision: str = "float32"
    validate: Callable[[], float] | None = None
    patience: int | None = None
    sampler: Sampler | None = None
    strategy: ParallelStrategy = ParallelStrategy()  # noqa: RUF009 (it is frozen)
    part: str = "network"

    @property
    def last(self) -> int:
        """The epoch after which the run is over, if patience does not end it before."""
        return min(self.epochs, self.stop_after or self.epochs)

    @property
    def passes(self) -> list[Phase]:
        """The phase of each pass of an epoch."""
        return [phase for phase in self.phases for _ in range(phase.passes)]

    def steps(self, n_users: int) -> int:
        """Steps of an epoch."""
        return -(-n_users // self.batch_size) * len(self.passes)


@dataclass
class State:
    """All that one step leaves to the next.

    Attributes
    ----------
    seed : int
        Of order, dropout and noise, which follow from it, the epoch, the pass and the user alone.
    best, best_epoch, best_weights
        Of the validations so far.
    done, steps
        Of the epoch under way, how many steps it has had, and what these gave, (steps, 3): sums over users of nll, kl
        and loss.
    """

    network: VAE
    optimizers: Sequence[torch.optim.Optimizer]
    seed: int
    history: list[Epoch] = field(default_factory=list)
    best: float = float("-inf")
    best_epoch: int = 1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    done: int = 0
    steps: Tensor = field(default_factory=lambda: torch.empty(0, 3))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.decoder.weight.device

    def make_room(self, n_steps: int) -> None:
        """For what the steps of the epoch give, of which some may be done."""
        room = torch.empty(n_steps, 3, device=self.device)
        room[: self.done] = self.steps[: self.done]
        self.steps = room

    def weigh(self, valid: float) -> float:
        """Keep the weights of the epoch that ends where it is better than all before. -> the best so far"""
        if valid > self.best:
            self.best, self.best_epoch = valid, len(self.history) + 1
            for name, parameter in self.network.named_parameters():
                if name in self.best_weights:  # in their place: there is no memory for them twice
                    self.best_weights[name].copy_(parameter.detach())
                else:
                    self.best_weights[name] = parameter.detach().clone()
        return self.best

    def is_over(self, plan: Plan) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        done = len(self.history)
        if plan.validate is not None and plan.patience is not None and 0 < done >= self.best_epoch + plan.patience:
            return True
        return done >= plan.last

    def finish(self) -> None:
        """Go back to the best weights, and let go of what training alone needs."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # nobody needs the last gradients, nor their memory
            optimizer.state.clear()
        self.network.requires_grad_(True)
        if self.network.prior is not None:
            self.network.prior.reset()
        if self.best_weights:
            self.network.load_state_dict(self.best_weights, strict=False)  # what is one parameter is there once
        self.best_weights = {}


class Saver:
    """What keeps a run, to be gone on with after a stop. This one keeps nothing."""

    def step(self, state: State) -> None:
        """A step has been made."""

    def epoch(self, state: State) -> None:
        """An epoch is over, and in the history."""

    def end(self, state: State) -> None:
        """The run is over."""


def train(
    state: State, rows: RowSource, plan: Plan, callbacks: Sequence[Callback] = (), saver: Saver | None = None
) -> list[Epoch]:
    """Minimise nll + beta * kl; with `plan.validate`, stop early and keep the weights that it liked best.

    It goes on where `state` is. The callbacks hear of each step and each epoch; what one raises ends the run.

    Raises
    ------
    TrainingError
        When a loss or a weight is not finite: at the end of the epoch, so that no step waits for the device.
    """
    saver = saver or Saver()
    while not state.is_over(plan):
        started, before = time.perf_counter(), state.done
        beta = run_epoch(state, rows, plan, callbacks, saver)
        users = len(rows) * len(plan.passes)
        speed = users * (1 - before / state.done) / (time.perf_counter() - started)
        nll, kl, loss = (state.steps.sum(0) / users).tolist()
        valid = None if plan.validate is None else plan.strategy.validate(plan.validate)
        check_metric(valid, len(state.history) + 1)
        best = None if valid is None else state.weigh(valid)
        seconds = time.perf_counter() - started
        epoch = Epoch(len(state.history) + 1, nll, kl, loss, beta, valid, seconds, best, speed, plan.part)
        state.history.append(epoch)
        state.done = 0
        for callback in callbacks:
            callback.on_epoch_end(epoch)
        saver.epoch(state)
    saver.end(state)
    state.finish()
    return state.history


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights `train` keeps: that of the best validation, or the last."""
    return max(history, key=lambda epoch: epoch.epoch if epoch.valid is None else epoch.valid)


def run_epoch(state: State, rows: RowSource, plan: Plan, callbacks: Sequence[Callback], saver: Saver) -> float:
    """All passes of the next epoch, or what is left of them. -> the last step's beta"""
    network, device, epochs = state.network, state.device, len(state.history)
    n_steps = plan.steps(len(rows))
    betas = [plan.beta((epochs + step / n_steps) / plan.epochs) for step in range(n_steps)]
    if state.done == 0 and network.prior is not None:
        network.prior.update(network.encoder, rows)
    state.make_room(n_steps)
    how = How(
        torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(plan.precision, device)),
        plan.max_grad_norm,
        sampler=plan.sampler,
        strategy=plan.strategy,
    )
    each = n_steps // len(plan.passes)
    for number, phase in enumerate(plan.passes):
        end = each * (number + 1)
        if state.done < end:
            key = fold_in(state.seed, epochs, number)
            batches = rows.batches_of(fold_in(key), plan.batch_size, state.done - (end - each))
            watched = _watched(batches, callbacks, state, saver)
            run_steps(state, watched, betas[state.done : end], replace(how, phase=phase, key=key))
    state.steps = plan.strategy.reduce_losses(state.steps.cpu())  # what the host learns of the epoch, once
    check_losses(state.steps[:, 2], epochs + 1)
    check_weights(network, epochs + 1, plan.strategy.communicator)
    return betas[-1]


def _watched(batches: Iterable[Batch], callbacks: Sequence[Callback], state: State, saver: Saver) -> Iterator[Batch]:
    """The batches, telling of each step that was made of one."""
    for batch in batches:
        yield batch
        for callback in callbacks:
            callback.on_step_end(len(state.history) + 1, state.done)
        saver.step(state)


@dataclass(frozen=True)
class How:
    """What the steps of a pass have in common.

    Attributes
    ----------
    precision : torch.autocast
        Of the products within the network.
    key : int
        Of the noise in this pass.
    """

    precision: torch.autocast
    max_grad_norm: float | None = None
    phase: Phase = WHOLE
    key: int = 0
    sampler: Sampler | None = None
    strategy: ParallelStrategy = ParallelStrategy()  # noqa: RUF009


def run_steps(state: State, batches: Iterable[Batch], betas: Sequence[float], how: How) -> None:
    """One step for each batch, noted in `state`, which has room for them."""
    how.phase.begin(state.network)
    with reuse_workspace() as memory:
        for batch, beta in zip(batches, betas, strict=True):
            memory.begin_step()
            state.steps[state.done] = _step(state, batch, beta, how)
            state.done += 1
    state.network.eval()


def _step(state: State, batch: Batch, beta: float, how: How) -> Tensor:
    """-> (3,), sums over this rank's users of nll, kl and loss, on the device"""
    network, ranks = state.network, how.strategy.data_parallel_group
    how.strategy.communicator.current_step = f"step {state.done + 1} of epoch {len(state.history) + 1}"
    for optimizer in state.optimizers:
        optimizer.zero_grad()
    if how.sampler is not None:
        batch = replace(batch, negatives=how.sampler.draw(batch, fold_in(how.key, 0, state.done)))
    mine, sums = ranks.shard_batch(batch), torch.zeros(3, device=state.device)
    if len(mine):
        with how.precision:
            terms = network(mine, CounterRNG.for_batch(how.key, mine))
        loss = terms.loss(beta)
        loss.backward()
        sums = torch.stack([terms.nll.sum(), terms.kl.sum(), loss * len(mine)]).detach()
    ranks.all_reduce_gradients(network.parameters(), len(mine) / len(batch))
    if how.max_grad_norm is not None:
        how.strategy.clip_grad_norm(network, how.max_grad_norm)
    for optimizer in state.optimizers:
        optimizer.step()
    return sums
