"""An expansion -> a folder of Parquet files, to be gone on with after a stop; and how like the real data it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.pages.markdown import markdown
from benchmarks.scale.fractal.expansion import Expansion, block_row, expand
from benchmarks.scale.fractal.likeness import likeness
from benchmarks.speed import machine
from recvae import load_dataset
from recvae.utils.files import replacing
from recvae.utils.folder import Manifest, Written, claimed, digest_of, read_manifest
from recvae.utils.memory import PeakMemory

KIND = "events"
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Part(Written):
    """The file of a row of blocks."""

    events: int


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
        manifest = write_events(expansion, folder, real.fingerprint())
    cost = {"seconds": time.perf_counter() - started, "peak_mib": peak.mib}
    size = sum(part.bytes for part in manifest.parts)
    about = {"dataset": dataset, "seed": seed, "blocks": list(expansion.chances.shape), "mib": size >> 20} | cost
    ones = sparse.csr_matrix((np.ones(real.n_events, np.float32), real.matrix.indices, real.matrix.indptr))
    return machine() | about | {"real": likeness(ones), "expansion": likeness(read_events(folder, expansion.shape))}


def write_events(
    expansion: Expansion, folder: Path, fingerprint: str, on_part: Callable[[Part], None] = lambda part: None
) -> Manifest[Part]:
    """A file for each row of blocks, of int64 columns user and item, in no order; files that are whole stay.

    Ids are 0 to n_users - 1 and n_items - 1, such that neighbours are of different blocks.

    Raises InvalidParameterError where the folder was begun with another expansion, and OutputError.
    """
    names = ("users", "items", "events", "seed")
    sizes = (*expansion.shape, round(float(expansion.expected.sum())), expansion.seed)
    settings = {"real": fingerprint} | dict(zip(names, sizes, strict=True))
    with claimed(folder, ["*.parquet"]):
        manifest = read_manifest(folder, KIND, Part, settings)
        whole = {part.file: part for part in manifest.parts if part.is_whole(folder)}
        manifest = replace(manifest, parts=[], done=False, facts={})
        for row in range(expansion.n_rows):
            name = f"part-{row:05}.parquet"
            part = whole.get(name) or _write_part(expansion, row, folder / name)
            manifest = replace(manifest, parts=[*manifest.parts, part])
            if name not in whole:
                later = [whole[file] for file in sorted(whole) if file > name]
                replace(manifest, parts=[*manifest.parts, *later]).write(folder)
                on_part(part)
        facts = {"events": sum(part.events for part in manifest.parts)}
        manifest = replace(manifest, done=True, facts=facts)
        manifest.write(folder)
    return manifest


def read_events(folder: Path, shape: tuple[int, int]) -> sparse.csr_matrix:
    """What was written, as a matrix of ones whose rows and columns are the ids. It takes 20 bytes an event or so."""
    tables = [pyarrow.parquet.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    users, items = (
        np.concatenate([table[name].to_numpy().astype(np.int32) for table in tables]) for name in ("user", "item")
    )
    return sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)


def fractal_table(*results: dict[str, Any]) -> str:
    """Expansions of one data set beside it, and what they took, as Markdown."""
    sides = [results[0]["real"], *(result["expansion"] for result in results)]
    rows = [["", results[0]["dataset"], *("expanded" for _ in results)]]
    for name in ("users", "items", "items_without_events", "events"):
        rows.append([name.replace("_", " "), *(f"{side[name]:,}" for side in sides)])
    for what in ("user", "item"):
        quantiles = ([f"{each:,.0f}" for each in side[f"{what}_quantiles"][1:]] for side in sides)
        rows.append(
            [f"events of a{'n' * (what == 'item')} {what}: 10 %, 50 %, 90 %, 99 %, most", *map(", ".join, quantiles)]
        )
        rows.append([f"Gini of {what}s", *(f"{side[f'{what}_gini']:.2f}" for side in sides)])
    rows.append(["slope of log(events) over log(rank) of items", *(f"{side['item_slope']:.2f}" for side in sides)])
    rows.append(["singular values 2, 3, 5, 10, 20, the first being 1", *(_spectrum(side) for side in sides)])
    rows.append(["Parquet files", "", *(f"{result['mib']:,} MiB" for result in results)])
    costs = [f"{result['seconds']:,.0f} s, {result['peak_mib']:,.0f} MiB" for result in results]
    rows.append(["making them, peak memory", "", *costs])
    return markdown(rows)


def _spectrum(side: dict[str, Any]) -> str:
    values = np.array(side["singular_values"])
    return ", ".join(f"{value:.2f}" for value in (values / values[0])[[1, 2, 4, 9, 19]])


def _write_part(expansion: Expansion, row: int, path: Path) -> Part:
    matrix, first = block_row(expansion, row), expansion.users_of(row).start
    order = np.random.default_rng([expansion.seed, row, 1 + expansion.chances.shape[1]]).permutation(matrix.nnz)
    users = first + np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    ids = {
        name: scattered(numbers[order].astype(np.int64), n)
        for name, numbers, n in zip(("user", "item"), (users, matrix.indices), expansion.shape, strict=True)
    }
    with replacing(path) as place:
        pyarrow.parquet.write_table(pa.table(ids), place)
    return Part(file=path.name, bytes=path.stat().st_size, sha256=digest_of(path), events=matrix.nnz)


def scattered(numbers: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Numbers below n, permuted so that neighbours are far apart."""
    step = max(1, round(n * GOLDEN))
    while math.gcd(step, n) > 1:
        step += 1
    return numbers * step % n
