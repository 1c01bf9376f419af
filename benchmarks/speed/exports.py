"""Whether exported models rank as torch does on real data, in onnxruntime and in numpy, and their latency."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae import HVamp, HybridVAE, MultDAE, MultVAE, OutputOptions, Recommender, RecVAE, load_split
from recvae.models.autoencoder.base import Autoencoder
from recvae.serving.export import export_numpy, export_onnx, numpy_scorer

N = 100  # length of the lists that are compared
TIMED = 200  # users, one per call
L2 = 300.0  # fixed, so that HybridVAE does not search for it
MODELS: dict[str, Autoencoder] = {
    "MultVAE": MultVAE(),
    "MultVAE, cosine": MultVAE(output=OutputOptions(logits="cosine")),
    "MultVAE, logistic, log1p": MultVAE(likelihood="logistic", values="log1p"),
    "MultVAE, gaussian, raw": MultVAE(likelihood="gaussian", values="raw"),
    "MultDAE": MultDAE(),
    "RecVAE": RecVAE(),
    "HVamp": HVamp(),
    "HybridVAE, dense": HybridVAE(l2=L2, form="dense"),
    "HybridVAE, sparse": HybridVAE(l2=L2, form="sparse"),
}
Results = dict[str, Any]
# rows, N -> ids and scores (B, N)
Engine = Callable[[sparse.csr_matrix, int], tuple[NDArray[Any], NDArray[Any]]]


def run_exports(dataset: str, home: Path | None, epochs: int, save: Callable[[Results], None]) -> Results:
    """Fit each model for a few epochs, and compare the lists of all test users. -> results that JSON can hold"""
    split = load_split(dataset, home)
    cases: list[Results] = []
    results = machine() | {"dataset": dataset, "epochs": epochs, "users": len(split.test.users), "cases": cases}
    for name, model in MODELS.items():
        model.epochs, model.random_state = epochs, 0
        model.fit(split.train, show_progress=False)
        for engine, ranker in _engines(model):
            cases.append({"model": name, "engine": engine} | compare(model, ranker, split.test.fold_in))
            print(*_row(cases[-1]), sep="  ", flush=True)
        save(results)
    return results


def compare(model: Recommender, ranker: Engine, rows: sparse.csr_matrix) -> Results:
    """Compare the lists of an engine with the model's own, which are the reference.

    -> share of users with the same N ids in the same order; where ids differ, the largest difference between the
    model's own scores of the two items, in standard deviations of the user's scores; milliseconds for one user (p50)
    """
    n_users, n_items = rows.shape
    everything = model.recommend(np.arange(n_users), rows, N=n_items, filter_already_liked_items=False)
    scores = np.take_along_axis(everything[1], np.argsort(everything[0], axis=1), axis=1)  # (B, I), by item
    expected, _ = model.recommend(np.arange(n_users), rows, N=N)
    found, _ = ranker(rows, N)
    users, ranks = (found != expected).nonzero()
    gaps = np.abs(scores[users, found[users, ranks]] - scores[users, expected[users, ranks]])
    return {
        "equal": float((found == expected).all(1).mean()),
        "apart": float((gaps / scores[users].std(1)).max(initial=0)),
        "ms": _p50(lambda row: ranker(row, 10), rows),
    }


def exports_table(results: Results) -> str:
    """What was found, as Markdown."""
    head = ["model", "by", f"equal lists of {N}", "largest difference where not", "one user's 10 best, ms"]
    return markdown([head, *(_row(case) for case in results["cases"])])


def _row(case: Results) -> list[str]:
    return [case["model"], case["engine"], f"{case['equal']:.2%}", f"{case['apart']:.1e}", f"{case['ms']:.2f}"]


def _engines(model: Recommender) -> Iterator[tuple[str, Engine]]:
    import onnxruntime

    def torch(rows: sparse.csr_matrix, n: int) -> Any:
        return model.recommend(np.arange(rows.shape[0]), rows, N=n)

    def onnx(rows: sparse.csr_matrix, n: int) -> Any:
        feed = {"items": rows.indices.astype(np.int64), "offsets": rows.indptr.astype(np.int64), "N": np.array(n)}
        return session.run(None, feed if model.values_ == "binary" else feed | {"values": rows.data})

    def numpy(rows: sparse.csr_matrix, n: int) -> Any:
        return scorer.recommend((rows.indices, rows.indptr, rows.data), n)

    yield "torch", torch
    file = io.BytesIO()
    export_onnx(model, file)
    session = onnxruntime.InferenceSession(file.getvalue())
    yield "onnxruntime", onnx
    file = io.BytesIO()
    export_numpy(model, file)
    file.seek(0)
    scorer = numpy_scorer.load(file)
    yield "numpy", numpy


def _p50(work: Callable[[sparse.csr_matrix], Any], rows: sparse.csr_matrix) -> float:
    """Milliseconds, the median over single users."""
    singles = [rows[[user]] for user in range(min(TIMED, rows.shape[0]))]
    work(singles[0])
    seconds = []
    for single in singles:
        started = time.perf_counter()
        work(single)
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)
