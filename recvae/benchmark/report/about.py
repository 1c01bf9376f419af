"""What the page says in words and tables: the verdict, the table of models, what it was measured on, by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recvae.benchmark.report.pieces import Table
from recvae.benchmark.report.view import ORACLE, AbsentError, View, metric_name, p_text, seconds_text
from recvae.benchmark.results import number
from recvae.models.base.params import param_text

MINUS = "\N{MINUS SIGN}"
MEANINGS = {
    "recall": "of the items hidden from the model, the share among the first k, relative to the most that k can hold",
    "recall_full": "of the items hidden from the model, the share among the first k",
    "ndcg": "as recall, with the first places counting most: 1 is a list that begins with all the hidden items",
    "precision": "the share of the first k places that hold a hidden item",
    "map": "the mean, over the hidden items found, of the precision at their places",
    "mrr": "one divided by the place of the first hidden item",
    "hit_rate": "the share of users for whom the first k places hold at least one hidden item",
}


@dataclass(frozen=True)
class Models:
    """The table of models, and what its columns mean."""

    table: Table
    best: str
    meanings: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Made:
    """How the results came about."""

    command: str
    again: str
    settings: Table
    versions: Table
    parameters: Table


def heading(view: View) -> str:
    """What the page is about."""
    return str(view.results.get("title") or view.results.get("dataset") or "Benchmark")


def verdict(view: View) -> str:
    """What came of it, in a sentence or two."""
    title, best = metric_name(view.main), view.models[0] if view.models else ORACLE
    top = view.mean(best)
    said = f"{best} ranks best, {title} {top.mean:.4f}." if top and len(view.models) > 1 else ""
    if top and not said:
        return f"{best} alone was measured: {title} {top.mean:.4f}."
    ours = view.ours[0] if view.ours else None
    found = view.test(ours) if ours else None
    if not (found and ours):
        return said
    rival, test = found
    difference, p = test["difference"], test.get("p_holm", test["p_value"])
    who = "That is" if ours == best else f"{ours}, the best of this package's models, has"
    more = f"{abs(difference):.4f} {'more' if difference >= 0 else 'less'} than {rival}, the best of the others"
    sure = "" if p < 0.05 else " That may be chance."
    return f"{said} {who} {more} ({_interval_text(test)}{p_text(p)}).{sure}"


def facts(view: View) -> list[tuple[str, str]]:
    """The sizes of it all."""
    settings = view.results["settings"]
    named = {"test_users": "test users", "train_users": "training users", "items": "items", "train_events": "events"}
    found = [
        (f"{int(value):,}", text) for key, text in named.items() if (value := number(settings.get(key))) is not None
    ]
    return [(str(len(view.models)), "model" if len(view.models) == 1 else "models"), *found]


def table(view: View) -> Models:
    """All models, best first."""
    cost = ["training", "users/s", "peak MiB"]
    rival = next((test[0] for name in view.models if (test := view.test(name))), None)
    metrics = [view.main, *view.metrics[:-1]]  # the main one first: on a phone it is the one that is seen
    head = [
        "model",
        *(metric_name(metric) for metric in metrics),
        f"less {rival or 'the best other'} (95 % interval)",
        "p",
        *cost,
    ]
    rows = []
    for name in view.rows:
        found = [view.mean(name, metric) for metric in metrics]
        means = ["" if value is None else f"{value.mean:.4f} ± {value.high - value.mean:.4f}" for value in found]
        rows.append([name, *means, *_difference(view, name), *_costs(view.rows[name])])
    return Models(Table(head, rows), view.models[0] if view.models else ORACLE, _meanings(view), _notes(view))


def made(view: View) -> Made:
    """Settings, versions, commands."""
    results = view.results
    settings = dict(results["settings"])
    protocol = settings.pop("protocol", None)
    split = settings.pop("split", None)
    flat = settings | {f"split: {k}": v for k, v in (split or {}).items()}
    known = {"split", *(split or {}), *settings}
    flat |= {f"protocol: {k}": v for k, v in (protocol or {}).items() if v is not None and k not in known}
    versions = results.get("versions")
    if not isinstance(versions, dict):
        raise AbsentError("the results hold no versions.")
    tried = {name: view.rows[name].get("settings_tried") for name in view.models}
    parameters = [
        [name, "" if tried[name] is None else str(tried[name]), _parameters(view.rows[name])] for name in view.models
    ]
    return Made(
        str(results.get("command") or ""),
        "recvae report results.json --out DIR",
        Table(["setting", "value"], [[key.replace("_", " "), _plain(value)] for key, value in flat.items()]),
        Table(["what", "version"], [[key.replace("_", " "), _plain(value)] for key, value in versions.items()]),
        Table(["model", "settings tried", "chosen"], parameters),
    )


def _difference(view: View, name: str) -> list[str]:
    found = view.test(name)
    if found is None:
        return ["", ""]
    _, test = found
    low, high = number(test.get("low")), number(test.get("high"))
    interval = "" if low is None or high is None else f" ({low:+.4f} to {high:+.4f})"
    p = test.get("p_holm", test["p_value"])
    return [
        f"{test['difference']:+.4f}{interval}".replace("-", MINUS),
        p_text(p).removeprefix("p = ").removeprefix("p "),
    ]


def _costs(row: dict[str, Any]) -> list[str]:
    seconds, speed, mib = (
        number(row.get(key)) for key in ("fit_seconds", "users_ranked_per_second", "peak_memory_mib")
    )
    return [
        "" if seconds is None else seconds_text(seconds),
        "" if speed is None else f"{speed:,.0f}",
        "" if mib is None else f"{mib:,.0f}",
    ]


def _meanings(view: View) -> list[tuple[str, str]]:
    """What each metric of the table is, once for those that differ in k alone."""
    names: dict[str, list[str]] = {}
    for metric in view.metrics:
        names.setdefault(metric.partition("@")[0], []).append(metric_name(metric))
    return [(", ".join(same), MEANINGS[base]) for base, same in names.items() if base in MEANINGS]


def _notes(view: View) -> list[str]:
    results = view.results
    notes = ["± is half the 95 % interval of the mean over test users."]
    tests = [found[1] for name in view.models if (found := view.test(name))]
    if tests:
        adjusted = " and adjusted for the number of tests (Holm)" if all("p_holm" in test for test in tests) else ""
        notes.append(
            f"Differences are in {metric_name(view.main)}, by a paired bootstrap over the test users against the best "
            f"of the models that are not this package's; p is two-sided{adjusted}."
        )
    if ORACLE in view.rows:
        notes.append("The oracle ranks by the preferences that the sample was drawn from: nobody can do better.")
    for name, figures in (results.get("published") or {}).items():
        measured = ", ".join(f"{metric_name(metric)} {figure:.4f}" for metric, figure in figures.items())
        notes.append(f"Published on this protocol: {name}, {measured}.")
    return notes + [f"{name} is absent: {why}" for name, why in (results.get("absent") or {}).items()]


def _interval_text(test: dict[str, Any]) -> str:
    low, high = number(test.get("low")), number(test.get("high"))
    return "" if low is None or high is None else f"95 % interval {low:+.4f} to {high:+.4f}, ".replace("-", MINUS)


def _parameters(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {param_text(value)}" for key, value in (row.get("parameters") or {}).items())


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 and not isinstance(value, bool) else str(value)
