"""Real data expanded fractally to a given size, as Parquet files, and how similar they are to the real data."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.pages.markdown import markdown
from benchmarks.scale.expansion import Expansion, block_row, expand
from benchmarks.speed import machine
from recvae import load_dataset
from recvae.errors import InvalidParameterError
from recvae.utils.memory import PeakMemory

GOLDEN = (math.sqrt(5) - 1) / 2
N_SINGULAR_VALUES = 20


def run_fractal(
    dataset: str, home: Path | None, sizes: tuple[int, int, int], seed: int, folder: Path
) -> dict[str, Any]:
    """Write the expansion of a data set to a folder, and compare the two. -> results for JSON

    sizes : users, items and events
    """
    real = load_dataset(dataset, home)
    started = time.perf_counter()
    with PeakMemory() as peak:
        expansion = expand(real.matrix, *sizes, seed=seed)
        write_events(expansion, folder)
    cost = {"seconds": time.perf_counter() - started, "peak_mib": peak.mib}
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    about = {"dataset": dataset, "seed": seed, "blocks": list(expansion.probabilities.shape), "mib": size >> 20} | cost
    ones = sparse.csr_matrix((np.ones(real.n_events, np.float32), real.matrix.indices, real.matrix.indptr))
    return machine() | about | {"real": likeness(ones), "expansion": likeness(read_events(folder, expansion.shape))}


def write_events(expansion: Expansion, folder: Path) -> None:
    """Write a file for each row of blocks, with int64 columns user and item, in random order.

    Ids run from 0 to n_users - 1 and to n_items - 1, permuted so that neighbouring ids belong to different
    blocks.

    Raises InvalidParameterError if the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidParameterError(
            f"Expected an empty folder for the events, got {folder}; delete it or name another."
        )
    for row in range(expansion.n_rows):
        matrix, first = block_row(expansion, row), expansion.users_of(row).start
        random = np.random.default_rng([expansion.seed, row, 1 + expansion.probabilities.shape[1]])
        order = random.permutation(matrix.nnz)
        users = first + np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        ids = {
            name: scattered(numbers[order].astype(np.int64), n)
            for name, numbers, n in zip(("user", "item"), (users, matrix.indices), expansion.shape, strict=True)
        }
        pyarrow.parquet.write_table(pa.table(ids), folder / f"part-{row:05}.parquet")


def scattered(numbers: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Numbers below n, permuted so that neighbours are far apart."""
    step = max(1, round(n * GOLDEN))
    while math.gcd(step, n) > 1:
        step += 1
    return numbers * step % n


def read_events(folder: Path, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Read the files as a matrix of ones, indexed by the ids; takes about 20 bytes per event."""
    tables = [pyarrow.parquet.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    users, items = (
        np.concatenate([table[name].to_numpy().astype(np.int32) for table in tables]) for name in ("user", "item")
    )
    return sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)


def likeness(matrix: sparse.csr_matrix) -> dict[str, Any]:
    """Statistics of realism: inequality of users and of items, and the largest singular values.

    matrix : its `data` has to be ones, and is not copied
    """
    activity, popularity = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])
    rank, start = min(N_SINGULAR_VALUES, min(matrix.shape) - 1), np.ones(min(matrix.shape), matrix.dtype)
    return {
        "users": matrix.shape[0],
        "items": matrix.shape[1],
        "events": int(matrix.nnz),
        "items_without_events": int((popularity == 0).sum()),
        "user_quantiles": np.quantile(activity, [0, 0.1, 0.5, 0.9, 0.99, 1]).tolist(),
        "user_gini": gini(activity),
        "item_quantiles": np.quantile(popularity, [0, 0.1, 0.5, 0.9, 0.99, 1]).tolist(),
        "item_gini": gini(popularity),
        "singular_values": sorted(
            map(float, svds(matrix, rank, return_singular_vectors=False, v0=start, tol=1e-3)), reverse=True
        ),
    }


def gini(counts: NDArray[np.int64]) -> float:
    """The Gini index of counts: 0 if all are equal, near 1 if one has everything."""
    ordered = np.sort(counts).astype(float)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def fractal_table(*results: dict[str, Any]) -> str:
    """Expansions of one data set next to the data set itself, with their cost, as Markdown."""
    sides = [results[0]["real"], *(result["expansion"] for result in results)]
    rows = [["", results[0]["dataset"], *("expanded" for _ in results)]]
    for name in ("users", "items", "items_without_events", "events"):
        rows.append([name.replace("_", " "), *(f"{side[name]:,}" for side in sides)])
    for what in ("user", "item"):
        quantiles = ([f"{n:,.0f}" for n in side[f"{what}_quantiles"][1:]] for side in sides)
        rows.append(
            [f"events of a{'n' * (what == 'item')} {what}: 10 %, 50 %, 90 %, 99 %, most", *map(", ".join, quantiles)]
        )
        rows.append([f"Gini of {what}s", *(f"{side[f'{what}_gini']:.2f}" for side in sides)])
    rows.append(["singular values 2, 3, 5, 10, 20, the first being 1", *(_spectrum(side) for side in sides)])
    rows.append(["Parquet files", "", *(f"{result['mib']:,} MiB" for result in results)])
    costs = [f"{result['seconds']:,.0f} s, {result['peak_mib']:,.0f} MiB" for result in results]
    rows.append(["making them, peak memory", "", *costs])
    return markdown(rows)


def _spectrum(side: dict[str, Any]) -> str:
    values = np.array(side["singular_values"])
    return ", ".join(f"{value:.2f}" for value in (values / values[0])[[1, 2, 4, 9, 19]])
