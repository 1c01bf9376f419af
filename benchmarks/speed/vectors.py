"""A vector index over item vectors: its cost, and its recall of the exact lists.

Vectors are those of a RecVAE trained on ml-1m, one in 3,000 or so. For more items, each is a trained item drawn at
random plus Gaussian noise: half a standard deviation in each dimension, its bias included. So they cluster, and
long ones (popular items) are in many lists, as in a real catalogue. Queries are the vectors of real users.
Each index is built in a separate process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae import RecVAE, load_split
from recvae.errors import InvalidParameterError
from recvae.serving.export import item_vectors, user_vectors

K = 100  # length of the lists
QUERIES = 1000
EPOCHS = 10  # of the RecVAE
NOISE = 0.5  # in standard deviations
SETTINGS = {"exact": (0,), "hnsw": (64, 128, 256, 512, 1024), "ivf": (4, 16, 64, 256)}  # efSearch, nprobe
Vectors = NDArray[np.float32]
Results = dict[str, Any]


def run_vectors(sizes: list[int], home: Path | None, save: Callable[[Results], None]) -> Results:
    """Measure each index for each number of items; the exact one first, which is the reference. -> for JSON"""
    items, users = _trained(home)
    cases: list[Results] = []
    results = machine() | {"dimensions": items.shape[1], "queries": len(users), "cases": cases}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "items.npy", expanded(items, size))
            np.save(Path(folder) / "users.npy", users)
            for index in SETTINGS:
                command = [sys.executable, "-m", "benchmarks.speed.vectors", folder, index]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{index} over {size} items failed: {done.stderr[-2000:]}")
                found = [{"items": size, "index": index} | case for case in json.loads(done.stdout)]
                cases += found
                print(*("  ".join(_row(case)) for case in found), sep="\n", flush=True)
                save(results)
    return results


def sizes_of(text: str) -> list[int]:
    """ "100000,1000000" as numbers. Raises InvalidParameterError."""
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError as error:
        raise InvalidParameterError(f"Expected numbers of items such as 100000,1000000, got {text!r}.") from error
    if min(sizes) < K:
        raise InvalidParameterError(f"Expected at least {K} items, got {text!r}.")
    return sizes


def expanded(items: Vectors, size: int, seed: int = 0) -> Vectors:
    """`size` vectors: trained ones drawn at random, with noise. (I, D) -> (size, D)"""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((size, items.shape[1]), dtype=np.float32)
    noise *= np.float32(NOISE) * items.std(0)
    noise += items[random.integers(len(items), size=size)]
    return noise


def measure(folder: Path, index: str) -> Iterator[Results]:
    """Build an index and search it, with each of its settings."""
    items, users = np.load(folder / "items.npy"), np.load(folder / "users.npy")
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    built = _built(index, items)
    about = {
        "build_seconds": time.perf_counter() - started,
        "mib": (psutil.Process().memory_info().rss - before) / 2**20,
    }
    for setting in SETTINGS[index]:
        if index == "hnsw":
            built.hnsw.efSearch = setting
        if index == "ivf":
            built.nprobe = setting
        _, ids = built.search(users, K)
        if index == "exact":
            np.save(folder / "exact.npy", ids)
        exact = np.load(folder / "exact.npy")
        hits = [len(np.intersect1d(one, other)) for one, other in zip(ids, exact, strict=True)]
        in_all, alone = _seconds(lambda: built.search(users, K), 3), _seconds(lambda: built.search(users[:1], K), 100)
        speed = {"queries_per_second": len(users) / in_all, "one_query_ms": 1e3 * alone}
        yield about | {"setting": setting, "recall": float(np.mean(hits)) / K} | speed


def vectors_table(results: Results) -> str:
    """What was found, as Markdown."""
    head = ["items", "index", "setting", "build, s", "MiB", f"recall@{K} of the exact", "queries/s", "one query, ms"]
    return markdown([head, *(_row(case) for case in results["cases"])])


def _row(case: Results) -> list[str]:
    name = {"exact": "-", "hnsw": f"ef {case['setting']}", "ivf": f"{case['setting']} lists"}[case["index"]]
    numbers = [f"{case['build_seconds']:.1f}", f"{case['mib']:,.0f}", f"{case['recall']:.4f}"]
    speed = [f"{case['queries_per_second']:,.0f}", f"{case['one_query_ms']:.2f}"]
    return [f"{case['items']:,}", case["index"], name, *numbers, *speed]


def _trained(home: Path | None) -> tuple[Vectors, Vectors]:
    """Vectors of items and of users, of a model of ml-1m."""
    split = load_split("ml-1m", home)
    model = RecVAE(epochs=EPOCHS, random_state=0).fit(split.train, show_progress=False)
    return item_vectors(model), user_vectors(model, split.train.matrix[:QUERIES])


def _built(index: str, items: Vectors) -> Any:
    import faiss

    size, dimensions = items.shape
    exact = faiss.IndexFlatIP(dimensions)
    built: Any = exact
    if index == "hnsw":
        built = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = 200
    if index == "ivf":
        built = faiss.IndexIVFFlat(exact, dimensions, round(4 * size**0.5), faiss.METRIC_INNER_PRODUCT)
        built.train(items)
    built.add(items)
    return built


def _seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    print(json.dumps(list(measure(Path(sys.argv[1]), sys.argv[2]))))
