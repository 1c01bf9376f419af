"""Choices on validation users, then the model for the test: the one order of things in which a test stays a test."""

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
from recvae.models.base.params import get_params
from recvae.training.checkpoint import Checkpoint, as_checkpoint
from recvae.utils.paths import output_path
from recvae.utils.progress import track


@dataclass(frozen=True)
class Choice:
    """Hyper-parameters, of how many settings they are the best, and the seconds that it took to find out."""

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
        settings = get_params(candidate)
        trial = type(candidate)(**settings | ({"random_state": 0} if "random_state" in settings else {}))
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
    """The model to be tested on `split.test`.

    Where validation users are others than training users, it is `model` itself, fitted on `split.train` with
    `split.valid`. Where they are the same, that fit only finds what validation chooses (the epoch to stop after); a new
    model is then fitted on all of `split.refit`. `callbacks` hear of both fits, and `checkpoint` keeps both, the first
    in a folder `choice` in its own.

    Raises
    ------
    RecvaeError
        What `fit` raises.
    """
    kept = as_checkpoint(checkpoint)
    more: dict[str, Any] = {"callbacks": callbacks, "checkpoint": kept}
    if split.refit is None:
        return model.fit(split.train, show_progress, callback, valid=split.valid, **more)
    if model.validation_metric:
        choice = None if kept is None else replace(kept, folder=output_path(kept.folder) / "choice")
        model.fit(split.train, show_progress, callback, valid=split.valid, **more | {"checkpoint": choice})
    return type(model)(**model.chosen_params()).fit(split.refit, show_progress, callback, **more)
