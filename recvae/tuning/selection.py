"""Selection of settings on validation users, and the fit of the model that is tested."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recvae.data.splits import Split
from recvae.evaluation.evaluate import evaluate
from recvae.models.base import Callbacks, FitCallback, Recommender
from recvae.models.base.params import get_params, options, with_params
from recvae.training.checkpoint import Checkpoint, as_checkpoint
from recvae.utils.paths import output_path
from recvae.utils.progress import track


@dataclass(frozen=True)
class Choice:
    """The best hyper-parameters, the number of settings tried, and the time that took in seconds."""

    params: dict[str, Any]
    settings_tried: int
    seconds: float


def choose(
    candidates: Sequence[Recommender], split: Split, metric: str = "ndcg@100", show_progress: bool = True
) -> Choice:
    """The hyper-parameters of the best candidate on the validation users; with a single one nothing is fitted."""
    if len(candidates) == 1:
        return Choice(get_params(candidates[0]), 1, 0.0)
    scores, started = [], time.perf_counter()
    for candidate in track(candidates, f"choosing among {len(candidates)} settings", show_progress):
        trial = with_params(candidate, {"random_state": 0} if "random_state" in options(candidate) else {})
        trial.fit(split.train, show_progress=False, valid=split.valid)
        scores.append(evaluate(trial, split.valid, [metric])[metric].mean)
    best = candidates[int(np.argmax(scores))]
    return Choice(get_params(best), len(candidates), time.perf_counter() - started)


def fit_split(
    model: Recommender,
    split: Split,
    show_progress: bool = True,
    callback: FitCallback | None = None,
    *,
    callbacks: Callbacks = (),
    checkpoint: Checkpoint | str | Path | None = None,
) -> Recommender:
    """Fit the model that is to be tested on `split.test`.

    Without `split.refit`, where validation users are not training users, this fits `model` itself on `split.train` with
    `split.valid`. Otherwise that fit only determines what validation chooses (the epoch to stop after), and a new model
    is then fitted on all of `split.refit`.

    Parameters
    ----------
    model : Recommender
        The model with its hyper-parameters.
    split : Split
        The split; its test users are not used.
    show_progress : bool
        As in `fit`.
    callback : FitCallback or None
        As in `fit`.
    callbacks : sequence
        As in `fit`; they are called in both fits.
    checkpoint : Checkpoint or str or Path or None
        As in `fit`; of two fits, the first one uses the subfolder `choice`.

    Returns
    -------
    Recommender
        A fitted model.

    Raises
    ------
    RecvaeError
        As `fit`.
    """
    parsed = as_checkpoint(checkpoint)
    fit_options: dict[str, Any] = {"callbacks": callbacks, "checkpoint": parsed}
    if split.refit is None:
        return model.fit(split.train, show_progress, callback, valid=split.valid, **fit_options)
    if model.validation_metric:
        choice = None if parsed is None else replace(parsed, folder=output_path(parsed.folder) / "choice")
        model.fit(split.train, show_progress, callback, valid=split.valid, **fit_options | {"checkpoint": choice})
    return type(model)(**model.chosen_params()).fit(split.refit, show_progress, callback, **fit_options)
