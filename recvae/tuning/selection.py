"""Selection on validation users, and the model that is then tested."""

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
    """The best hyper-parameters, the number of settings that were tried, and the seconds that this took."""

    params: dict[str, Any]
    settings_tried: int
    seconds: float


def choose(
    candidates: Sequence[Recommender], split: Split, metric: str = "ndcg@100", show_progress: bool = True
) -> Choice:
    """The hyper-parameters of the candidate that is best on the validation users; one candidate is no choice."""
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

    If validation users are other users than the training users, it is `model` itself, fitted on `split.train` with
    `split.valid`. If they are the same, that fit only finds what validation chooses (the epoch to stop after), and a
    new model is then fitted on all of `split.refit`.

    Parameters
    ----------
    model : Recommender
        With its hyper-parameters.
    split : Split
        Its test users are not looked at.
    show_progress : bool, FitCallback or None
        As in `fit`.
    callback : bool, FitCallback or None
        As in `fit`.
    callbacks : sequence
        As in `fit`; they are called in both fits.
    checkpoint : Checkpoint or str or Path or None
        As in `fit`; it holds both fits, the first one in its folder `choice`.

    Returns
    -------
    Recommender
        A fitted model.

    Raises
    ------
    RecvaeError
        As `fit`.
    """
    kept = as_checkpoint(checkpoint)
    more: dict[str, Any] = {"callbacks": callbacks, "checkpoint": kept}
    if split.refit is None:
        return model.fit(split.train, show_progress, callback, valid=split.valid, **more)
    if model.validation_metric:
        choice = None if kept is None else replace(kept, folder=output_path(kept.folder) / "choice")
        model.fit(split.train, show_progress, callback, valid=split.valid, **more | {"checkpoint": choice})
    return type(model)(**model.chosen_params()).fit(split.refit, show_progress, callback, **more)
