"""Names of metrics, such as "ndcg@100": this module loads no library, cards and commands use it."""

from __future__ import annotations

from recvae.errors import InvalidParameterError, UnknownNameError

METRIC_NAMES = ("recall", "recall_full", "precision", "hit_rate", "mrr", "map", "ndcg")
DEFAULT_METRICS = ("recall@20", "recall@50", "ndcg@100")


def parse_metric(name: str) -> tuple[str, int]:
    """Split "ndcg@100" into ("ndcg", 100). Raises UnknownNameError, InvalidParameterError."""
    base, at, k = str(name).partition("@")
    if base not in METRIC_NAMES:
        raise UnknownNameError.among("metric", base, METRIC_NAMES)
    if not at or not k.removeprefix("-").isdecimal():
        raise InvalidParameterError(f"Expected a metric with its cut-off, such as {base}@20, got {name!r}.")
    if int(k) < 1:
        raise InvalidParameterError(f"Expected k of at least 1, got {name!r}.")
    return base, int(k)
