"""Hyper-parameter search: propose settings, fit, evaluate on the validation users, and repeat."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recvae.data.splits import Split
from recvae.errors import (
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
    RecvaeError,
    TrainingError,
    UnknownUsersError,
)
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.names import parse_metric
from recvae.models.base import Recommender
from recvae.models.base.params import (
    check_params,
    file_keys,
    flat_params,
    get_params,
    options,
    param_text,
    search_space,
    unknown_param,
    with_params,
)
from recvae.models.base.spaces import Space
from recvae.training.callbacks import Epoch
from recvae.tuning.study import Study, Trial, open_study
from recvae.utils.checks import check_integer
from recvae.utils.progress import bar

# errors that end one trial; those among them that end the search, because every trial would raise them
FAILURES = (RecvaeError, MemoryError, torch.OutOfMemoryError)
FATAL = (MissingDependencyError, UnknownUsersError, InvalidTypeError)


class Pruned(Exception):  # noqa: N818  not an error
    """Raised in a fit to stop a trial that the pruner rejects."""


@dataclass(frozen=True)
class Tuned:
    """Result of a search.

    Attributes
    ----------
    model : Recommender
        A model with the best settings, not yet fitted: `fit_split(tuned.model, split)`.
    params : dict[str, Any]
        The best settings: hyper-parameters that were searched for, and those that were fixed.
    value : float
        The mean of `metric` over validation users in the best trial. It is biased upwards, as the maximum of many
        trials on the same users: judge the model by the test users.
    metric : str
        The metric that was maximised.
    trials : list[Trial]
        All trials, in order; `pandas.DataFrame(tuned.trials)` is a table.
    importance : dict[str, float]
        Share of each hyper-parameter in what distinguishes the best trials (PED-ANOVA, Watanabe et al. 2023); empty
        with fewer than 10 complete trials, or if all have the same value.
    seconds : float
        Total time of all trials, including those of earlier runs.
    """

    model: Recommender
    params: dict[str, Any]
    value: float
    metric: str
    trials: list[Trial]
    importance: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Task:
    """What all trials share. The first trial is `model` itself; the others change the hyper-parameters in `space`."""

    model: Recommender
    split: Split
    metric: str
    fixed: dict[str, Any]
    space: dict[str, Space]


def tune(
    model: type[Recommender],
    split: Split,
    trials: int = 30,
    *,
    metric: str = "ndcg@100",
    fixed: Mapping[str, Any] | None = None,
    study: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    timeout: float | None = None,
    show_progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Search for the hyper-parameters of a model class that are best for the users of `split.valid`.

    The first trial has the defaults. The others are proposed by the tree-structured Parzen estimator (Bergstra et al.
    2011), within the spaces that `hyper(..., search=...)` declares. Each trial is a fit on `split.train`; `split.test`
    and `split.refit` are not used. If a model validates after each epoch, a trial is stopped early once its best
    epoch so far is worse than the median of complete trials at that epoch, but not before five trials and ten epochs. A
    trial that fails is recorded, and the search continues.

    Parameters
    ----------
    model : type[Recommender]
        The class, such as `recvae.MultVAE`.
    split : Split
        Its training and validation users are used.
    trials : int
        Total number of trials, including those that `study` already has.
    metric : str
        The metric to maximise, such as "recall@20". Early stopping uses NDCG@100, as `fit` does to choose the epoch.
    fixed : Mapping[str, Any] or None
        Hyper-parameters that all trials share, such as {"epochs": 20}.
    study : str or Path or None
        SQLite file that stores the trials. An interrupted search resumes from it, and makes the same trials as an
        uninterrupted one; a trial that was running starts again. For one process at a time.
    name : str or None
        Name of the study within the file; by default that of the model.
    seed : int
        Seed of the proposals, and `random_state` of every trial unless that is fixed.
    timeout : float or None
        Start no new trial after this many seconds; the first one always runs.
    show_progress : bool
        Show a progress bar.
    log : Callable[[str], None]
        Called with one line after each trial.

    Returns
    -------
    Tuned
        The best settings, and all trials.

    Raises
    ------
    MissingDependencyError
        If Optuna is not installed.
    UnknownNameError, InvalidParameterError, InvalidTypeError
        If an argument is invalid, or the model has no hyper-parameter to search for.
    InvalidDataError
        If the study is damaged, or belongs to another model, metric, data set, space or fixed value.
    UnknownUsersError
        If the model cannot score the validation users.
    TrainingError
        If no trial was completed.
    """
    check_integer("trials", trials, 1)
    check_integer("seed", seed, 0, 2**32 - 1)
    parse_metric(metric)
    if timeout is not None and not timeout > 0:
        raise InvalidParameterError(f"Expected timeout to be a number of seconds above 0, got {timeout!r}.")
    task = _task(model, split, metric, dict(fixed or {}), seed)
    with open_study(study, name or model.__name__, _asked(task), task.space, file_keys(model), seed) as opened:
        _search(opened, task, trials, timeout, show_progress, log)
        return _tuned(opened, task)


def _task(model: type[Recommender], split: Split, metric: str, fixed: dict[str, Any], seed: int) -> Task:
    if not (isinstance(model, type) and issubclass(model, Recommender)):
        raise InvalidTypeError(f"Expected a class of models such as MultVAE, got {model!r}.")
    for param in fixed:
        if param not in get_params(model(), deep=True):
            raise unknown_param(param, model)
    space = {param: values for param, values in search_space(model).items() if param not in fixed}
    if not space:
        raise InvalidParameterError(
            f"Expected a hyper-parameter to search for, got {model.__name__}, where none has a space or all are fixed."
        )
    seeded = {"random_state": seed} if "random_state" in options(model) else {}
    first = with_params(model(), seeded | fixed)
    check_params(first)  # now, because every trial would fail with the same error
    return Task(first, split, metric, fixed, space)


def _asked(task: Task) -> dict[str, str]:
    """A description of the search, by which a resumed study is recognised; hyper-parameters by their file keys."""
    keys, first_params = file_keys(task.model), flat_params(task.model, run_options=False)
    shared = {key: f"fixed at {param_text(value)}" for key, value in first_params.items()}
    spaces = {keys[param]: f"searched in {values}" for param, values in task.space.items()}
    about = {"model": type(task.model).__name__, "metric": task.metric, "data": _fingerprint(task.split)}
    return about | shared | spaces


def _fingerprint(split: Split) -> str:
    """A digest of the training and validation data."""
    digest = hashlib.blake2b(f"{split.train.fingerprint()} {split.train.values}".encode(), digest_size=16)
    for rows in (split.valid.fold_in, split.valid.held_out):
        for array in (rows.indptr.astype(np.int64), rows.indices.astype(np.int64), rows.data):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _search(
    study: Study, task: Task, trials: int, timeout: float | None, show_progress: bool, log: Callable[[str], None]
) -> None:
    """Run trials until there are `trials` of them or `timeout` has passed."""
    started, finished = time.monotonic(), study.trials()
    with bar(show_progress) as progress:
        shown = progress.add_task(f"tuning {type(task.model).__name__}", total=trials, completed=len(finished), note="")
        while len(finished) < trials and (not finished or timeout is None or time.monotonic() - started < timeout):
            _try(study, task)
            finished = study.trials()
            best = max((trial.value for trial in finished if trial.value is not None), default=float("nan"))
            progress.update(shown, completed=len(finished), note=f"best {task.metric} {best:.4f}")
            log(f"{_line(finished[-1], task.metric)} (best so far: {best:.4f})")


def _try(study: Study, task: Task) -> None:
    """Run one trial: propose, fit, evaluate, and record the result."""
    defaults = get_params(task.model, deep=True)
    trial, params = study.ask({param: defaults[param] for param in task.space})
    model = with_params(task.model, params)

    def watch(epoch: Epoch) -> None:
        if epoch.valid is None or epoch.part != "network":
            return
        if study.report(trial, epoch.epoch, epoch.valid):
            raise Pruned(f"ended after epoch {epoch.epoch}, with NDCG@100 {epoch.valid:.4f}")

    try:
        model.fit(task.split.train, show_progress=False, valid=task.split.valid, callbacks=[watch])
        value = evaluate(model, task.split.valid, [task.metric])[task.metric].mean
    except Pruned as why:
        study.tell(trial, state="pruned", note=str(why))
    except FATAL:
        raise
    except FAILURES as error:
        study.tell(trial, state="failed", note=str(error) or type(error).__name__)
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch's message if CPU memory runs out
            raise
        study.tell(trial, state="failed", note=str(error).splitlines()[0])
    else:
        study.tell(trial, value)


def _line(trial: Trial, metric: str) -> str:
    outcome = f"{trial.state}: {trial.note}" if trial.value is None else f"{metric} {trial.value:.4f}"
    params = ", ".join(f"{param}={param_text(value)}" for param, value in trial.params.items())
    return f"trial {trial.number}, {trial.seconds:.1f} s, {params}: {outcome}"


def _tuned(study: Study, task: Task) -> Tuned:
    finished = study.trials()
    complete = [(trial.value, trial) for trial in finished if trial.value is not None]
    if not complete:
        raise TrainingError(
            f"Expected a trial that can be fitted, got {len(finished)} that failed; the last: {finished[-1].note}"
        )
    value, best = max(complete, key=lambda pair: pair[0])
    return Tuned(
        with_params(task.model, best.params),
        best.params | task.fixed,
        value,
        task.metric,
        finished,
        study.importance(),
        sum(trial.seconds for trial in finished),
    )
