"""`recommend_to_parquet`: check the arguments and the folder, then make the parts on this machine or with Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse

from recvae.data.histories import UnknownItems
from recvae.data.ids import ItemIndex
from recvae.data.parquet.source import Source, find_source
from recvae.data.parquet.stored import LEAST_MIB
from recvae.data.rules import Rules, UnknownIds
from recvae.data.weighting import Weighting
from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.models.base import Recommender
from recvae.models.base.model_file import content_checksum
from recvae.models.base.state import snapshot
from recvae.serving.batch.local import check_parts, make_missing_parts, replace_parts
from recvae.serving.batch.ordered import OrderedEvents
from recvae.serving.batch.parts import Part, PartMaker, Progress
from recvae.serving.batch.seen import digest_of_seen, seen_table
from recvae.serving.names import ENGINES, USERS_PER_PART
from recvae.utils.checks import check_integer
from recvae.utils.folder import Manifest, claimed, read_manifest, sound_manifest
from recvae.utils.paths import output_path
from recvae.utils.progress import bar
from recvae.version import __version__

KIND = "lists"


@dataclass(frozen=True)
class BulkResult:
    """What a folder of parts contains at the end of a run.

    Attributes
    ----------
    users, recommendations : int
        Totals over all parts.
    parts, made : int
        Number of parts, and how many of them this run wrote.
    unknown : UnknownItems
        Events on items that the model does not know.
    unknown_ids : tuple of UnknownIds
        Ids in the rules that have no effect.
    """

    users: int
    recommendations: int
    parts: int
    made: int
    unknown: UnknownItems
    unknown_ids: tuple[UnknownIds, ...] = ()


def recommend_to_parquet(
    model: Recommender,
    input: str | Path,
    out: str | Path,
    N: int = 10,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    min_value: float | None = None,
    users_per_part: int = USERS_PER_PART,
    memory_mib: int = 1024,
    show_progress: bool = True,
    on_part: Callable[[Part], None] | None = None,
    engine: str = "local",
    actors: int | None = None,
    ray_address: str | None = None,
    seen: Any = None,
    rules: Rules | None = None,
    behavior: str | None = None,
    weights: Mapping[str, float] | None = None,
    unknown_behavior: str = "refuse",
) -> BulkResult:
    """Write the N best new items for each user of Parquet files that may exceed memory to a folder of Parquet files.

    Parameters
    ----------
    model : Recommender
        A fitted model that knows the raw ids of its items.
    input : str or Path
        A Parquet file or a folder of them, rows in any order: a row per event, or a row per user with a column of lists
        of items.
    out : str or Path
        The output folder: part-00000.parquet, ... with columns user, rank, item, score and, if known, title, each with
        `users_per_part` users in ascending order, and _manifest.json, which records the inputs and settings.
    N : int
        Length of the lists.
    user : str
        Column of raw ids of users, integers or strings.
    item : str
        Column of raw ids of items, integers or strings.
    value : str or None
        Column of values.
    min_value : float or None
        Least `value` of an event whose item counts as liked. Items with lower values, or 0, count as seen only: the
        model neither reads nor recommends them. Users who liked nothing get the recommendations for an empty history,
        without what they have seen.
    users_per_part : int
        Users in a file.
    memory_mib : int
        How much memory DuckDB may use to sort, in addition to the model and a block of users; beyond that it uses
        temporary files in `out`.
    show_progress : bool
        Show a progress bar.
    on_part : Callable[[Part], None] or None
        Called with each `Part` that was written. An exception in it ends the run.
    engine : str
        "local", or "ray" for Ray Data on a cluster whose machines all see `input` and `out` at the same paths.
    actors : int or None
        With Ray, the number of processes that score, each with a copy of the model; by default one per CPU.
    ray_address : str or None
        With Ray, the address of a running cluster, or "auto"; by default the cluster that this process is connected to,
        else the one in RAY_ADDRESS, else one on this machine for the duration of the run.
    seen : dict or frame or None
        Other items that users have seen, in raw ids: {user: [item, ...]} or a frame with columns `user` and `item`, in
        memory. It is not recommended either, and users who appear only here get lists too.
    rules : Rules or None
        Allow and deny lists and the other rules of `recvae.Rules`, whose frames have columns `user` and `item`.
    behavior : str or None
        Column of behaviours, such as view, cart and buy.
    weights : dict or None
        What an event of each behaviour counts, as in `Interactions.from_frame`; by default as in the training of the
        model. An item whose events all weigh 0 was seen only.
    unknown_behavior : str
        Whether to "refuse" or "drop" events of other behaviours.

    Returns
    -------
    BulkResult
        Counts of users, lists and parts.

    Raises
    ------
    InvalidParameterError
        If `out` was started with another model, input or setting.
    OutputError
        If `out` contains something else or cannot be written.
    MissingDependencyError
        If DuckDB, or Ray, is not installed.
    InvalidDataError
        As `Interactions.from_frame`.
    UnknownUsersError
        If the model cannot score new users; nothing is written then.
    EngineError
        If Ray fails; its error is the cause.

    Notes
    -----
    If an earlier run into `out` was interrupted, its complete parts are kept and only the others are written: in the
    end all files are those of an uninterrupted run, byte for byte (on one machine, with the same libraries). With Ray a
    run starts from the beginning, and a file has the users whose ids share a hash, `users_per_part` on average.
    """
    N, users_per_part = check_integer("N", N, 1), check_integer("users_per_part", users_per_part, 1)
    check_integer("memory_mib", memory_mib, LEAST_MIB)
    cluster = _cluster(engine, actors, ray_address)
    if behavior is not None and weights is None:
        weights = model.preparation_.get("weights")
    weighting = Weighting(behavior, weights, unknown_behavior)
    source, folder = find_source(input, user, item, value, min_value, weighting), output_path(out)
    source.check_apart(folder)
    model = snapshot(model)
    index = _known_items(model, N)
    columns = (
        "value" if source.has_values else None,
        None if weighting else min_value,
    )  # weighed values have no minimum
    seen_rows = seen_table(seen, index, user, item)
    resolved = None if rules is None else rules.resolve(index, user=user, item=item)
    maker = PartMaker(model, index, min(N, len(index)), *columns, users_per_part, resolved)
    content = _content(model)
    settings = _settings(type(model), content, source, N, users_per_part, engine) | {
        # added later, because it changes the lists; older folders have None here
        "masked items": None if source.value is None else "all that a user has touched",
        "weighting": weighting.record() or None,
        "items seen besides": digest_of_seen(seen_rows),
        "rules": None if resolved is None else resolved.digest(),
    }
    report = on_part or (lambda part: None)
    only_users, unknown_ids = (None, ()) if resolved is None else (resolved.only_users, resolved.unknown)
    with claimed(folder, ["part-?????.parquet"]) as scratch:
        manifest = read_manifest(folder, KIND, Part, settings)
        with sound_manifest(folder):
            check_parts(manifest)
        intact = [part.is_whole(folder) for part in manifest.parts]
        if manifest.done and all(intact):
            return _result(manifest, 0, unknown_ids)
        ordered = OrderedEvents(source, scratch / "sort", memory_mib, seen_rows, only_users)
        with ordered as events, bar(show_progress) as display:
            events.check(maker.index)
            unknown_ids += events.unknown_users()
            progress = Progress(display)
            if cluster is None:
                made = make_missing_parts(folder, manifest, intact, events, maker, progress, report)
                return _result(*made, unknown_ids)
            parts = cluster.parts(source, maker, content, events, scratch / "parts", progress)
            return _result(*replace_parts(folder, manifest, parts, scratch / "parts", report), unknown_ids)


def _cluster(engine: str, actors: int | None, ray_address: str | None) -> Any:
    """The connection to Ray; None for engine="local"."""
    if engine not in ENGINES:
        raise UnknownNameError.among("engine", engine, ENGINES)
    if engine == "ray":
        from recvae.serving.batch.ray_data import Cluster

        return Cluster(actors, ray_address)
    for name, argument in (("actors", actors), ("ray_address", ray_address)):
        if argument is not None:
            raise InvalidParameterError(f"Expected {name} with engine='ray' only, got {argument!r}.")
    return None


def _known_items(model: Recommender, N: int) -> ItemIndex:
    """Items of a model, which has to score new users. Raises NotFittedError, UnknownUsersError, InvalidDataError."""
    model.ranked_table(
        np.empty(0, dtype=np.int64), sparse.csr_matrix((0, len(model.known_items())), dtype=np.float32), N
    )
    return model.known_items()


def _content(model: Recommender) -> bytes:
    """The bytes of the model's file."""
    content: list[bytes] = []
    sink: Any = SimpleNamespace(write=content.append)
    model.save(sink)
    return content[0]


def _settings(kind: type, content: bytes, source: Source, N: int, users_per_part: int, engine: str) -> dict[str, Any]:
    """All settings that determine the output, as JSON values."""
    return {
        "recvae": __version__,
        "engine": engine,
        "model": f"{kind.__name__}, checksum {content_checksum(content)}",
        "N": N,
        "users_per_part": users_per_part,
        "columns": [source.user, source.item, source.value],
        "min_value": None if source.min_value is None else float(source.min_value),
        "input": source.state(),
    }


def _result(manifest: Manifest[Part], n_made: int, unknown_ids: tuple[UnknownIds, ...]) -> BulkResult:
    parts = manifest.parts
    unknown = sum((UnknownItems(part.unknown, tuple(part.examples)) for part in parts), UnknownItems())
    return BulkResult(sum(p.users for p in parts), sum(p.rows for p in parts), len(parts), n_made, unknown, unknown_ids)
