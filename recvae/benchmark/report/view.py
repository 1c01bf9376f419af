"""Results as the page shows them: ordered models, their looks, and the error for missing data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recvae.benchmark.grids import OURS
from recvae.benchmark.results import number

# the colours of Okabe & Ito (2008) as CSS variables, because the dark page has lighter ones; see page.css
N_COLOURS = 8
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (7, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 2, 1, 2, 1, 2))
ORACLE = "oracle"
Z = 1.96  # standard errors to either side of a 95 % interval


class AbsentError(Exception):
    """The results lack what a section of the page needs; the message says what and why."""


@dataclass(frozen=True)
class Look:
    """How a model, or a group, is drawn in all charts."""

    name: str
    colour: str
    shape: str
    dash: tuple[int, ...]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; low = high = mean if the standard error is unknown."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column names the row."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A chart, the sentences around it, and its numbers as a table.

    Attributes
    ----------
    read : str
        One sentence on how to read the chart.
    label : str
        What the chart shows, for screen readers.
    spec : dict[str, Any]
        The chart in Vega-Lite.
    looks : list[Look]
        Its legend.
    caption : str
        The result that the chart shows in words, if it has one.
    controls : bool
        Whether the page has an element for controls above the chart.
    """

    name: str
    title: str
    read: str
    label: str
    spec: dict[str, Any]
    table: Table
    looks: list[Look]
    caption: str = ""
    controls: bool = False


class View:
    """Checked results, with the queries that all sections share.

    Attributes
    ----------
    main
        The metric that sorts the table.
    rows : dict[str, dict[str, Any]]
        Name -> row of each model that has this metric, best first.
    models
        Names of the models without the oracle.
    looks
        How each model is drawn, by name.
    """

    def __init__(self, results: dict[str, Any]):
        self.results = results
        self.metrics: list[str] = results["settings"]["metrics"]
        self.main = self.metrics[-1]
        named = [row for row in results["models"] if isinstance(row, dict) and isinstance(row.get("model"), str)]
        measured = [(mean, row) for row in named if (mean := _interval_of(row, self.main)) is not None]
        self.rows: dict[str, dict[str, Any]] = {
            row["model"]: row for _, row in sorted(measured, key=lambda pair: -pair[0].mean)
        }
        self.models = [name for name in self.rows if name != ORACLE]
        self.looks = {name: look(name, index) for index, name in enumerate(self.models)}
        if ORACLE in self.rows:
            self.looks[ORACLE] = Look(ORACLE, "currentColor", "triangle-left", (1, 3))

    @property
    def ours(self) -> list[str]:
        """The models in `OURS`, those that this package is about, best first."""
        return [name for name in self.models if name in OURS]

    def interval(self, name: str, metric: str | None = None) -> Interval | None:
        """A metric of a model, by default the main one."""
        return _interval_of(self.rows[name], metric or self.main)

    def chart_row(self, name: str) -> dict[str, Any]:
        """The main metric of a model as a row of a chart's data."""
        return {"name": name} | columns_of(self.interval(name))

    def values(self, key: str) -> dict[str, Any]:
        """What the models have under a key, by model. Raises AbsentError where none has it."""
        values = {name: row[key] for name, row in self.rows.items() if row.get(key) is not None}
        if not values:
            raise AbsentError(f"the results hold no {key} of any model; they were made by an older version, or cut.")
        return values

    def numbers(self, key: str) -> dict[str, float]:
        """The finite numbers that the models have under a key, by model. Raises AbsentError where none has one."""
        numbers = {name: value for name in self.models if (value := number(self.rows[name].get(key))) is not None}
        if not numbers:
            raise AbsentError(f"the results hold no {key} of any model.")
        return numbers

    def paired_test(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The paired test of a model against the best baseline. -> baseline, test"""
        row, rival = self.rows[name], self.results.get("best_baseline")
        tests = row.get("paired_tests") or {}
        only = row.get("paired_test") or {}  # format 2 has one test for each model
        if only:
            rival, tests = only.get("against"), {only.get("against"): only}
        test = tests.get(rival) if isinstance(tests, dict) else None
        if not isinstance(test, dict) or any(number(test.get(key)) is None for key in ("difference", "p_value")):
            return None
        return str(rival), test


def look(name: str, index: int) -> Look:
    """The look of index `index`; of the first 24, no two share colour and dashes, or colour and shape."""
    return Look(
        name,
        f"var(--m{index % N_COLOURS})",
        SHAPES[(index + 3 * (index // N_COLOURS)) % len(SHAPES)],  # a colour that is used again gets another shape
        DASHES[(index + 2 * (index // N_COLOURS)) % len(DASHES)],
    )


def interval(summary: Any) -> Interval | None:
    """The interval of a mean and its standard error as the results hold them; None if the mean is not a number."""
    mean = number(summary.get("mean")) if isinstance(summary, dict) else None
    if mean is None:
        return None
    stderr = number(summary.get("stderr")) or 0.0
    return Interval(mean, mean - Z * stderr, mean + Z * stderr)


def columns_of(value: Interval | None) -> dict[str, float]:
    """An interval as columns of a chart's data."""
    return {} if value is None else {"mean": value.mean, "low": value.low, "high": value.high}


def metric_name(metric: str) -> str:
    """The name of a metric in prose: "ndcg@100" is "NDCG@100"."""
    base, _, k = metric.partition("@")
    names = {"ndcg": "NDCG", "map": "MAP", "mrr": "MRR", "recall_full": "Recall (of all)", "hit_rate": "Hit rate"}
    return f"{names.get(base, base.capitalize())}@{k}"


def listing(names: Sequence[Any]) -> str:
    """Names as in a sentence: "A", "A and B", "A, B and C"."""
    *others, last = map(str, names)
    return f"{', '.join(others)} and {last}" if others else last


def p_text(p: float) -> str:
    """A p-value with three digits."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < .001"


def seconds_text(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 0.1:
        return f"{seconds:.1g} s"
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _interval_of(row: dict[str, Any], metric: str) -> Interval | None:
    metrics = row.get("metrics")
    return interval(metrics.get(metric)) if isinstance(metrics, dict) else None
