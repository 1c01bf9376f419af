"""Fill the tables of the README and the guide, between `<!-- table: NAME -->` and `<!-- end -->`.

So no number in a table is typed by hand, and one command updates all pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.accuracy.sampled import BUDGETS, sampled_table
from benchmarks.latent.tables import (
    anomaly_table,
    elbo_table,
    exploration_table,
    generation_table,
    noise_table,
    planes_table,
)
from benchmarks.pages import tables as table
from benchmarks.scale.bulk import bulk_table
from benchmarks.scale.fractal import fractal_table
from benchmarks.scale.large import large_table
from benchmarks.scale.ranks import ranks_table
from benchmarks.scale.ray import ray_table
from benchmarks.scale.resume import resume_table
from benchmarks.scale.scaling import check_table, laws_table, rates_table
from benchmarks.scale.shards import shards_table
from benchmarks.speed.exports import exports_table
from benchmarks.speed.serving import serving_table
from benchmarks.speed.startup import installation_table, startup_table
from benchmarks.speed.tables import round_table
from benchmarks.speed.threads import threads_table
from benchmarks.speed.vectors import vectors_table

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The README and the pages of the guide."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The text of a page with its tables filled in. Raises KeyError for an unknown name."""
    return PLACE.sub(lambda place: f"{place[1]}\n{tables[place[2]]()}\n\n{place[3]}", text)


def fill_pages() -> None:
    """Bring the tables of all pages up to date."""
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = filled(old, TABLES)
        if new != old:
            page.write_text(new, encoding="utf-8")


def _of(make: Callable[..., str], *names: str) -> Callable[[], str]:
    """A table of recorded results, read when it is asked for."""
    return lambda: make(*(json.loads((table.RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names))


TABLES: dict[str, Callable[[], str]] = {
    "results": table.results_table,
    "models": table.models_table,
    "published": table.published_tables,
    "reference": table.reference_table,
    "joins": table.joins_table,
    "cold": table.cold_table,
    "growing": table.growing_table,
    "anomaly": _of(anomaly_table, "anomaly-ml-1m"),
    "generation": _of(generation_table, "generation-ml-1m"),
    "exploration": _of(exploration_table, "exploration-ml-1m"),
    "elbo": _of(elbo_table, "elbo-ml-1m"),
    "elbo-noise": _of(noise_table, "elbo-ml-1m"),
    "elbo-planes": _of(planes_table, "elbo-ml-1m"),
    "startup": _of(startup_table, "startup"),
    "threads": _of(threads_table, "threads"),
    "installation": _of(installation_table, "startup"),
    "steps": partial(table.speed_table, 0),
    "epochs": partial(table.speed_table, 1),
    "rounds": _of(round_table, "rounds"),
    "bulk": _of(bulk_table, "bulk"),
    "ray": _of(ray_table, "ray"),
    "serving": _of(serving_table, "serving"),
    "exports": _of(exports_table, "exports-ml-1m"),
    "vectors": _of(vectors_table, "vectors"),
    "shards": _of(shards_table, "shards"),
    "fractal": _of(fractal_table, "fractal-1m", "fractal-100k"),
    "sampled": _of(sampled_table, *(f"sampled-{name}" for name in BUDGETS)),
    "large": _of(large_table, "large"),
    "ranks": _of(ranks_table, "ranks"),
    "resume": _of(resume_table, "resume"),
    "scaling-laws": _of(laws_table, "scaling"),
    "scaling-rates": _of(rates_table, "scaling"),
    "scaling-check": _of(check_table, "scaling"),
    "ranking": partial(table.speed_table, 2),
    "growth": partial(table.speed_table, 3),
}
