"""The parts of a run on a cluster: Ray Data groups events by user, and actors with a model each rank them.

Ray reads, shuffles, schedules and restarts; events become lists in `recvae.serving.batch.parts`, as on one machine.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from recvae.data.parquet.files import row_groups, row_reader
from recvae.data.parquet.source import Source
from recvae.data.weighting import weighed_rows
from recvae.errors import EngineError, InvalidParameterError, RecvaeError
from recvae.models.base import Recommender
from recvae.serving.batch.ordered import OrderedEvents, by_users
from recvae.serving.batch.parts import Part, PartMaker, Progress, block_sizes
from recvae.utils.checks import check_integer
from recvae.utils.files import write_whole
from recvae.utils.optional import require

MODEL = "model"
LOGGERS = ("ray", "ray.data")
MOST_BLOCKS = 1024  # largest number of blocks of row groups to read


class Cluster:
    """The connected Ray cluster, the one at `address`, or one on this machine for the duration of the work.

    Parameters
    ----------
    actors : int or None
        Number of processes that score; None for one per CPU.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    InvalidParameterError
        If an address is given and this process is already connected to a cluster.
    """

    def __init__(self, actors: int | None = None, address: str | None = None):
        self._ray = _ray()
        self._actors = None if actors is None else check_integer("actors", actors, 1)
        if address is not None and self._ray.is_initialized():
            raise InvalidParameterError(
                f"Expected no address of a cluster, as this process is connected to one, got {address!r}; call "
                f"ray.shutdown() first."
            )
        self._address = address

    def parts(
        self,
        source: Source,
        maker: PartMaker,
        content: bytes,
        stored: OrderedEvents,
        folder: Path,
        progress: Progress,
    ) -> list[Part]:
        """Write the lists of all users of a source as files in a folder, named by their digests. -> parts in any order

        Parameters
        ----------
        content : bytes
            The content of the model's file.
        stored : OrderedEvents
            The events of the source, open: their number of users, rows of items seen, and the only users.

        Raises
        ------
        EngineError
            If Ray fails.
        RecvaeError
            If recvae raises it in an actor.
        """
        folder, n_users = folder.resolve(), stored.count_users()
        write_whole(folder / MODEL, content)
        with self._connected(), self._translating_errors():
            n_parts = -(-n_users // maker.users_per_part)
            # in two steps: actors that wait for the shuffle would occupy the CPUs that it needs
            users = self._grouped_by_user(source, n_parts, stored)
            progress.start(n_users, 0)
            parts = []
            for row in self._ranked(users, maker, folder, n_parts).iter_rows():
                parts.append(Part(**json.loads(row["part"])))
                progress.advance(parts[-1].users)
        if (n_ranked := sum(part.users for part in parts)) != n_users:
            raise EngineError(
                f"Expected Ray to bring the events of each of {n_users:,} users together, got lists of {n_ranked:,}."
            )
        return parts

    def _grouped_by_user(self, source: Source, n_blocks: int, stored: OrderedEvents) -> Any:
        """A Dataset of the events in `n_blocks` blocks, where all events of a user are in one block."""
        # not Ray's reader, which takes names as patterns or URLs, and types from the first file
        groups, seen_rows, only_users = row_groups(source.files), stored.seen_rows, stored.only_users
        rows = self._ray.data.from_arrow(groups, override_num_blocks=max(1, min(len(groups), MOST_BLOCKS)))
        events = rows.map_batches(
            _named(_reader(source), None if seen_rows is None else seen_rows.schema, only_users),
            batch_size=None,
            batch_format="pyarrow",
        )
        if seen_rows is not None:
            if only_users is not None:
                seen_rows = seen_rows.filter(pc.is_in(seen_rows["user"], value_set=only_users["user"].combine_chunks()))
            events = events.union(self._ray.data.from_arrow(seen_rows))
        # without the sort, Ray may split a block
        return events.repartition(n_blocks, keys=["user"], sort=True).materialize()

    def _ranked(self, users: Any, maker: PartMaker, folder: Path, n_parts: int) -> Any:
        """A Dataset of the parts that `PartActor`s make of the blocks. Ray replaces actors that die."""
        n_cpus = int(self._ray.cluster_resources().get("CPU", 1))
        actors = min(self._actors or n_cpus, n_parts)
        cpus = min(max(1, n_cpus // actors), self._fewest_cpus())
        return users.map_batches(
            PartActor,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=self._ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            fn_constructor_args=(
                type(maker.model),
                folder,
                maker.N,
                maker.value,
                maker.min_value,
                maker.users_per_part,
                cpus,
                None if maker.rules is None else self._ray.put(maker.rules),  # sent once, not with each actor
            ),
            num_cpus=cpus,
        )

    def _fewest_cpus(self) -> int:
        """The smallest number of CPUs of any machine that has some."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(min((cpus for cpus in nodes if cpus), default=1)))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Within the `with` block, Ray runs without output; a cluster that is started for it ends with it."""
        context = self._ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # its threads import fsspec's HTTP module concurrently: without aiohttp, that fails now and then
        context.use_datasource_v2 = False
        with _quiet(), self._ray.data.DataContext.current(context):
            if self._ray.is_initialized():
                yield
                return
            self._start()
            try:
                yield
            finally:
                self._ray.shutdown()

    def _start(self) -> None:
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data itself causes its warnings
            options["include_dashboard"] = False
        try:
            self._ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"Expected a cluster of Ray at {address!r}, got: {_reason(error)}; start one with `ray start`, or "
                f"leave the address out."
            ) from error

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Within the `with` block, re-raise recvae's errors of actors as they are, and others as EngineError."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            *_, first = _causes(error)
            if isinstance(first, RecvaeError):
                raise type(first)(_line(first)) from error
            raise EngineError(f"Expected Ray to make all parts, got: {_reason(error)}; nothing was written.") from error


class PartActor:
    """An actor that loads the model once and writes a part to a folder for each block of users."""

    def __init__(
        self,
        kind: type[Recommender],
        folder: Path,
        N: int,
        value: str | None,
        min_value: float | None,
        users_per_part: int,
        threads: int,
        rules: Any,
    ):
        torch.set_num_threads(threads)
        # unpickling the class has registered it, even if it is not of this package
        model = kind.load(folder / MODEL, device="cpu")
        known = None if rules is None else _ray().get(rules)
        self._maker = PartMaker(model, model.known_items(), N, value, min_value, users_per_part, known)
        self._folder = folder

    def __call__(self, events: pa.Table) -> Iterator[pa.Table]:
        """Write the part of a block, and yield a row that describes it; none where the block is empty."""
        order = [(name, "ascending") for name in ("user", "item", "value") if name in events.column_names]
        if "value" not in events.column_names:
            order = order[:1]
        batches = events.sort_by(order).to_batches()
        result = self._maker.make(by_users(batches, cycle(block_sizes(self._maker.users_per_part))), lambda users: None)
        if result is not None:
            part, content = result
            write_whole(self._folder / part.file, content)
            yield pa.table({"part": [json.dumps(asdict(part))]})


def _reader(source: Source) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Row groups -> columns user, item and, if events have values, value."""
    read = row_reader(source.files)
    if not source.weighting:
        return read
    return weighed_rows(read, source.weighting, source.value is not None, source.min_value)


def _named(
    read: Callable[[pa.Table], Iterator[pa.Table]], schema: pa.Schema | None, only_users: pa.Table | None
) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Row groups -> columns user, item and, for a third one, value; or those of a schema, empty where not here.

    With `only_users`, a column of ids, the rows of others are left out.

    A nested function is pickled by value: workers that only read need not import this module, and torch.
    """

    def events(groups: pa.Table) -> Iterator[pa.Table]:
        for rows in read(groups):
            values = [column.cast(pa.float64()) for column in rows.columns[2:]]
            table = pa.table([*rows.columns[:2], *values], ["user", "item", "value"][: rows.num_columns])
            if schema is not None:
                columns = {name: table[name] for name in table.column_names}
                filled = [
                    columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(table), field.type)
                    for field in schema
                ]
                table = pa.table(filled, schema=schema)
            if only_users is not None:
                chosen = only_users["user"].cast(table["user"].type)
                table = table.filter(pc.is_in(table["user"], value_set=chosen.combine_chunks()))
            yield table

    return events


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray's loggers: every failure is raised as an error."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error of Ray and its chain of causes."""
    cause: Any = error
    while isinstance(cause, BaseException):
        yield cause
        inner = getattr(cause, "cause", None) or cause.__cause__
        cause = inner if str(inner or "").strip() else None  # Ray Data appends errors without a message


def _reason(error: BaseException) -> str:
    """The first cause, on one line."""
    *_, first = _causes(error)
    return f"{type(first).__name__}: {_line(first)}".rstrip(".: ")


def _line(error: BaseException) -> str:
    """The informative line: the last one of a traceback of Ray ("ray::..."), else the first, above any advice."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1 if lines[0].startswith("ray::") else 0]


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # today's default, set to silence a warning
    ray = require("ray", extra="ray", purpose="Scoring on a cluster")
    require("ray.data", extra="ray", purpose="Scoring on a cluster")
    return ray
