"""The timed work: a training step of each engine, an epoch, and ranking many users. Shared by all suites here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.accuracy.textbook import TextbookMultVAE
from benchmarks.accuracy.textbook_recvae import TextbookRecVAE
from recvae import MultVAE, RecVAE, TrainingOptions
from recvae.data.batches import DeviceRows

Work = Callable[..., object]
ENGINES = ("textbook", "textbook-autocast", "float32", "bfloat16")  # the latter two are recvae's precisions
ALS_FACTORS = 256
WIDTHS: dict[str, Any] = {"hidden_dims": (600,), "latent_dim": 200}  # the paper's, on every catalogue


@contextmanager
def training(matrix: sparse.csr_matrix, engine: str, batch_size: int, device: str = "cpu") -> Iterator[Work]:
    """A function that makes the next training step of a 600-200-600 Mult-VAE by one of the `ENGINES`.

    For recvae it takes a number of steps, and runs on `device`; the textbook's makes one step, on a CPU.
    """
    if engine.startswith("textbook"):
        yield _textbook_step(matrix, batch_size, autocast=engine.endswith("autocast"))
        return
    model = MultVAE(**WIDTHS, random_state=0, device=device, training=TrainingOptions(precision=engine))
    trainer = model.trainer(matrix)
    rows = DeviceRows(matrix, trainer.state.device)
    batches = itertools.chain.from_iterable(rows.batches_of(key, batch_size) for key in itertools.count())

    def step(n: int = 1) -> None:
        for batch in itertools.islice(batches, n):
            trainer.step(batch, 0.1)

    with trainer.in_pass():
        yield step


def _textbook_step(matrix: sparse.csr_matrix, batch_size: int, autocast: bool) -> Work:
    model = TextbookMultVAE(autocast=autocast)
    _, optimizer = model.build(matrix.shape[1])
    random = np.random.default_rng(0)

    def step() -> None:
        model.step(matrix[random.choice(matrix.shape[0], batch_size, replace=False)], optimizer, 0.1)

    return step


def recvae_round(matrix: sparse.csr_matrix, engine: str, batch_size: int) -> Callable[[int], list[float]]:
    """A function that trains a RecVAE for some rounds by one of the `ENGINES`, and gives the seconds of each."""
    if engine == "textbook":
        return partial(_textbook_rounds, TextbookRecVAE(matrix.shape[1], batch_size), matrix)

    def rounds(n: int) -> list[float]:
        seconds: list[float] = []
        model = RecVAE(
            latent_dim=WIDTHS["latent_dim"],
            random_state=0,
            epochs=n,
            batch_size=batch_size,
            encoder_passes=3,
            decoder_passes=1,
            training=TrainingOptions(precision=engine),
        )
        model.fit(matrix, show_progress=False, callback=lambda _, took, __: seconds.append(took))
        return seconds

    return rounds


def _textbook_rounds(model: TextbookRecVAE, matrix: sparse.csr_matrix, n: int) -> list[float]:
    seconds = []
    for _ in range(n):
        started = time.perf_counter()
        model.round(matrix)
        seconds.append(time.perf_counter() - started)
    return seconds


def ranking(matrix: sparse.csr_matrix, engine: str, n_users: int, N: int = 100) -> Work:
    """A function that ranks the new items of the first users, by "recvae" or "als" (implicit's).

    Our model is trained on 20,000 users, because low-precision screening takes longer the closer the best scores are;
    the time of ALS does not depend on its factors, so that one iteration is enough.
    """
    users, rows = np.arange(n_users), matrix[:n_users]
    if engine == "recvae":
        model = MultVAE(**WIDTHS, random_state=0, epochs=1, batch_size=500).fit(matrix[:20_000], show_progress=False)
        return lambda: model.recommend(users, rows, N=N)
    import implicit
    import threadpoolctl

    threadpoolctl.threadpool_limits(1, "blas")  # as implicit advises: it has threads of its own
    als = implicit.als.AlternatingLeastSquares(factors=ALS_FACTORS, iterations=1, random_state=0)
    als.fit(matrix, show_progress=False)
    return lambda: als.recommend(users, rows, N=N)
