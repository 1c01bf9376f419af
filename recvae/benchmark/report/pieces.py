"""What a part of the page is made of: a chart, how to read it, and the same numbers as a table."""

from __future__ import annotations

from dataclasses import dataclass

from recvae.benchmark.report.charts import Spec
from recvae.benchmark.report.view import AbsentError, Look, Summary, View
from recvae.benchmark.results import number


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column names the row."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A chart and all that is said about it.

    Attributes
    ----------
    read : str
        One sentence on how to read it.
    label : str
        What it shows, for who cannot see it.
    found : str
        What there is to see in it, where words can say it.
    """

    name: str
    title: str
    read: str
    label: str
    spec: Spec
    table: Table
    looks: list[Look]
    found: str = ""
    controls: bool = False


def interval(found: Summary | None) -> dict[str, float]:
    """As a row of a chart has it."""
    return {} if found is None else {"mean": found.mean, "low": found.low, "high": found.high}


def numbers(view: View, key: str) -> dict[str, float]:
    """What models have under a key, where it is a number. Raises AbsentError where none has."""
    found = {name: value for name in view.models if (value := number(view.rows[name].get(key))) is not None}
    if not found:
        raise AbsentError(f"the results hold no {key} of any model.")
    return found
