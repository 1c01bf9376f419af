"""Text and tables of the page: verdict, facts, the table of models, and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recvae.benchmark.report.view import ORACLE, AbsentError, Table, View, listing, metric_name, p_text, seconds_text
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
    """The table of models, the name of the best, and what the columns mean."""

    table: Table
    best: str
    meanings: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Provenance:
    """How the results were made."""

    command: str
    settings: Table
    versions: Table
    parameters: Table


def heading(view: View) -> str:
    """The title of the data set."""
    return str(view.results.get("title") or view.results.get("dataset") or "Benchmark")


def verdict(view: View) -> str:
    """The result in a sentence or two."""
    metric, best = metric_name(view.main), view.models[0] if view.models else ORACLE
    top = view.interval(best)
    if top and len(view.models) < 2:
        return f"{best} alone was measured: {metric} {top.mean:.4f}."
    sentence = f"{best} ranks best, {metric} {top.mean:.4f}." if top else ""
    ours = view.ours[0] if view.ours else None
    rival_and_test = view.paired_test(ours) if ours else None
    if not (rival_and_test and ours):
        return sentence
    rival, test = rival_and_test
    difference, p = test["difference"], test.get("p_holm", test["p_value"])
    subject = "That is" if ours == best else f"{ours}, the best of this package's models, has"
    comparison = f"{abs(difference):.4f} {'more' if difference >= 0 else 'less'} than {rival}, the best of the others"
    low, high = number(test.get("low")), number(test.get("high"))
    bounds = "" if low is None or high is None else f"95 % interval {low:+.4f} to {high:+.4f}, ".replace("-", MINUS)
    doubt = "" if p < 0.05 else " That may be chance."
    return f"{sentence} {subject} {comparison} ({bounds}{p_text(p)}).{doubt}"


def facts(view: View) -> list[tuple[str, str]]:
    """The numbers of models, users, items and events, as pairs of number and name."""
    settings = view.results["settings"]
    names = {"test_users": "test users", "train_users": "training users", "items": "items", "train_events": "events"}
    sizes = [
        (f"{int(value):,}", name) for key, name in names.items() if (value := number(settings.get(key))) is not None
    ]
    return [(str(len(view.models)), "model" if len(view.models) == 1 else "models"), *sizes]


def models(view: View) -> Models:
    """The table of all models, best first."""
    rival = next((test[0] for name in view.models if (test := view.paired_test(name))), None)
    metrics = [view.main, *view.metrics[:-1]]  # the main metric first: on a phone only the first one is visible
    head = [
        "model",
        *(metric_name(metric) for metric in metrics),
        f"less {rival or 'the best other'} (95 % interval)",
        "p",
        *("training", "users/s", "peak MiB"),
    ]
    rows = []
    for name in view.rows:
        intervals = [view.interval(name, metric) for metric in metrics]
        means = ["" if value is None else f"{value.mean:.4f} ± {value.high - value.mean:.4f}" for value in intervals]
        rows.append([name, *means, *_difference(view, name), *_costs(view.rows[name])])
    return Models(Table(head, rows), view.models[0] if view.models else ORACLE, _meanings(view), _notes(view))


def _difference(view: View, name: str) -> list[str]:
    """The difference from the best baseline with its interval, and its p-value."""
    rival_and_test = view.paired_test(name)
    if rival_and_test is None:
        return ["", ""]
    _, test = rival_and_test
    low, high = number(test.get("low")), number(test.get("high"))
    bounds = "" if low is None or high is None else f" ({low:+.4f} to {high:+.4f})"
    p = p_text(test.get("p_holm", test["p_value"]))
    return [f"{test['difference']:+.4f}{bounds}".replace("-", MINUS), p.removeprefix("p = ").removeprefix("p ")]


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
    """The definition of each metric of the table, once for metrics that differ only in k."""
    names: dict[str, list[str]] = {}
    for metric in view.metrics:
        names.setdefault(metric.partition("@")[0], []).append(metric_name(metric))
    return [(", ".join(same), MEANINGS[base]) for base, same in names.items() if base in MEANINGS]


def _notes(view: View) -> list[str]:
    results = view.results
    notes = ["± is half the 95 % interval of the mean over test users."]
    tests = [rival_and_test[1] for name in view.models if (rival_and_test := view.paired_test(name))]
    if tests:
        adjusted = " and adjusted for the number of tests (Holm)" if all("p_holm" in test for test in tests) else ""
        notes.append(
            f"Differences are in {metric_name(view.main)}, by a paired bootstrap over the test users against the best "
            f"of the models that are not this package's; p is two-sided{adjusted}."
        )
    sized = results["settings"].get("sized_for_sample")
    if isinstance(sized, list) and sized:
        notes.append(
            f"{listing(sized)}: settings for the size of the sample instead of the defaults, fewer "
            "epochs, smaller networks and fewer neighbours; see the hyper-parameters below."
        )
    if ORACLE in view.rows:
        notes.append("The oracle ranks by the preferences that the sample was drawn from: no model can do better.")
    for name, figures in (results.get("published") or {}).items():
        measured = ", ".join(f"{metric_name(metric)} {figure:.4f}" for metric, figure in figures.items())
        notes.append(f"Published on this protocol: {name}, {measured}.")
    return notes + [f"{name} is absent: {why}" for name, why in (results.get("absent") or {}).items()]


def provenance(view: View) -> Provenance:
    """The command, settings, versions and hyper-parameters behind the results."""
    results = view.results
    settings = dict(results["settings"])
    protocol = settings.pop("protocol", None) or {}
    split = settings.pop("split", None) or {}
    shown = {"split", *split, *settings}  # keys that are not repeated from the protocol
    settings |= {f"split: {key}": value for key, value in split.items()}
    settings |= {f"protocol: {k}": value for k, value in protocol.items() if value is not None and k not in shown}
    versions = results.get("versions")
    if not isinstance(versions, dict):
        raise AbsentError("the results hold no versions.")
    parameters = []
    for name in view.models:
        row = view.rows[name]
        tried = "" if row.get("settings_tried") is None else str(row["settings_tried"])
        chosen = ", ".join(f"{key} = {param_text(value)}" for key, value in (row.get("parameters") or {}).items())
        parameters.append([name, tried, chosen])
    return Provenance(
        str(results.get("command") or ""),
        Table(["setting", "value"], _named_values(settings)),
        Table(["what", "version"], _named_values(versions)),
        Table(["model", "settings tried", "chosen"], parameters),
    )


def _named_values(values: dict[str, Any]) -> list[list[str]]:
    return [[key.replace("_", " "), _value_text(value)] for key, value in values.items()]


def _value_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(part) for part in value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 and not isinstance(value, bool) else str(value)
