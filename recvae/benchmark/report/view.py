"""Results as a page reads them: models in their order, each with a look of its own, and what is not there said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recvae.benchmark.grids import OURS
from recvae.benchmark.results import number

# colours are those of Okabe & Ito (2008), by CSS variables, so that a dark page has lighter ones; see page.css
N_COLOURS = 8
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (7, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 2, 1, 2, 1, 2))
ORACLE = "oracle"
Z = 1.96  # standard errors to either side of a 95 % interval


class AbsentError(Exception):
    """A part of the page that these results do not have; the message says why."""


@dataclass(frozen=True)
class Look:
    """How a model, or a group, is drawn wherever it is drawn."""

    name: str
    colour: str
    shape: str
    dash: tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """A mean with its 95 % interval; low = high = mean where the error is not known."""

    mean: float
    low: float
    high: float


class View:
    """Checked results.

    Attributes
    ----------
    main
        The metric that sorts the table.
    rows : dict[str, dict[str, Any]]
        By name, the models that have it, best first.
    models
        Their names but for the oracle's, which is none.
    """

    def __init__(self, results: dict[str, Any]):
        self.results = results
        self.metrics: list[str] = results["settings"]["metrics"]
        self.main = self.metrics[-1]
        found = [row for row in results["models"] if isinstance(row, dict) and isinstance(row.get("model"), str)]
        means = {row["model"]: _metric(row, self.main) for row in found}
        known = [(mean, row) for row in found if (mean := means[row["model"]]) is not None]
        self.rows: dict[str, dict[str, Any]] = {
            row["model"]: row for _, row in sorted(known, key=lambda pair: -pair[0].mean)
        }
        self.models = [name for name in self.rows if name != ORACLE]
        self.looks = {name: look(name, place) for place, name in enumerate(self.models)}
        if ORACLE in self.rows:
            self.looks[ORACLE] = Look(ORACLE, "currentColor", "triangle-left", (1, 3))

    def mean(self, name: str, metric: str | None = None) -> Summary | None:
        """A metric of a model, by default the main one."""
        return _metric(self.rows[name], metric or self.main)

    def each(self, key: str) -> dict[str, Any]:
        """What models have under a key. Raises AbsentError where none has it."""
        found = {name: row[key] for name, row in self.rows.items() if row.get(key) is not None}
        if not found:
            raise AbsentError(f"the results hold no {key} of any model; they were made by an older version, or cut.")
        return found

    def test(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The paired test of a model against the best model that is not ours. -> rival, test"""
        row, rival = self.rows[name], self.results.get("best_baseline")
        tests = row.get("paired_tests") or {}
        old = row.get("paired_test") or {}  # format 2
        if old:
            rival, tests = old.get("against"), {old.get("against"): old}
        test = tests.get(rival) if isinstance(tests, dict) else None
        complete = isinstance(test, dict) and all(
            number(test.get(key)) is not None for key in ("difference", "p_value")
        )
        return (str(rival), test) if complete and test is not None else None

    @property
    def ours(self) -> list[str]:
        """The models of this package that it is about, best first."""
        return [name for name in self.models if name in OURS]


def look(name: str, place: int) -> Look:
    """The look of the thing of this place; of the first 24, no two share colour and dashes, or colour and mark."""
    return Look(
        name,
        f"var(--m{place % N_COLOURS})",
        SHAPES[(place + 3 * (place // N_COLOURS)) % len(SHAPES)],  # a colour that comes again has another mark
        DASHES[(place + 2 * (place // N_COLOURS)) % len(DASHES)],
    )


def _metric(row: dict[str, Any], name: str) -> Summary | None:
    known = row.get("metrics")
    return summary(known.get(name)) if isinstance(known, dict) else None


def summary(found: Any) -> Summary | None:
    """A mean and its error as a file has them, or None where the mean is no number."""
    mean = number(found.get("mean")) if isinstance(found, dict) else None
    if mean is None:
        return None
    error = number(found.get("stderr")) or 0.0
    return Summary(mean, mean - Z * error, mean + Z * error)


def metric_name(metric: str) -> str:
    """ "ndcg@100" as prose has it: "NDCG@100"."""
    base, _, k = metric.partition("@")
    called = {"ndcg": "NDCG", "map": "MAP", "mrr": "MRR", "recall_full": "Recall (of all)", "hit_rate": "Hit rate"}
    return f"{called.get(base, base.capitalize())}@{k}"


def p_text(p: float) -> str:
    """A p-value to three digits."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < .001"


def seconds_text(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 0.1:
        return f"{seconds:.1g} s"
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
