"""Lists for very many users on a cluster: Ray Data brings users together and keeps actors, each with a model, at work.

Ray reads, shuffles, schedules and restarts; how events become lists is `recvae.serving.batch.lists`, as on one machine.
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
import torch

from recvae.data.parquet.files import row_groups, row_reader
from recvae.data.parquet.source import Source
from recvae.errors import EngineError, InvalidParameterError, RecvaeError
from recvae.models.base import Recommender
from recvae.serving.batch.lists import Lists, Part, block_sizes
from recvae.serving.batch.meter import Meter
from recvae.serving.batch.ordered import by_users
from recvae.utils.checks import check_integer
from recvae.utils.files import write_whole
from recvae.utils.optional import require

MODEL = "model"
LOGGERS = ("ray", "ray.data")
MOST_BLOCKS = 1024  # of row groups to read


class Cluster:
    """Ray where it runs already, or at `address`, or on this machine for as long as there is work.

    Parameters
    ----------
    actors : int or None
        How many processes score; None for one for each CPU.

    Raises
    ------
    MissingDependencyError
        Where Ray is not installed.
    InvalidParameterError
        For an address beside a connection.
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
        lists: Lists,
        content: bytes,
        n_users: int,
        place: Path,
        meter: Meter,
        touched: pa.Table | None = None,
    ) -> list[Part]:
        """The lists of all users of a source as files in the folder `place`, named by their content, in no order.

        Parameters
        ----------
        content : bytes
            The model, as in its file.
        n_users : int
            How many there are.
        touched : pa.Table or None
            Rows beside those of the source, of what was seen, with all columns that a block is to have.

        Raises
        ------
        EngineError
            Where Ray fails.
        RecvaeError
            What recvae raises in an actor.
        """
        place = place.resolve()
        write_whole(place / MODEL, content)
        with self._connected(), self._translating_errors():
            n_parts = -(-n_users // lists.users_per_part)
            # two steps: actors that wait for the shuffle would hold the CPUs that it needs
            users = self._together(source, n_parts, touched)
            meter.start(n_users, 0)
            made = []
            for row in self._scored(users, lists, place, n_parts).iter_rows():
                made.append(Part(**json.loads(row["part"])))
                meter.advance(made[-1].users)
        if (found := sum(part.users for part in made)) != n_users:
            raise EngineError(
                f"Expected Ray to bring the events of each of {n_users:,} users together, got lists of {found:,}."
            )
        return made

    def _together(self, source: Source, n_blocks: int, touched: pa.Table | None) -> Any:
        """Events in so many blocks, in one of which a user is alone or with others, but whole. A Dataset."""
        # not Ray's reader, to which names are patterns and addresses, and types those of the first file
        groups = row_groups(source.files)
        rows = self._ray.data.from_arrow(groups, override_num_blocks=max(1, min(len(groups), MOST_BLOCKS)))
        events = rows.map_batches(
            _named(row_reader(source.files), None if touched is None else touched.schema),
            batch_size=None,
            batch_format="pyarrow",
        )
        if touched is not None:
            events = events.union(self._ray.data.from_arrow(touched))
        # it is the sort that keeps Ray from cutting a block
        return events.repartition(n_blocks, keys=["user"], sort=True).materialize()

    def _scored(self, users: Any, lists: Lists, place: Path, n_parts: int) -> Any:
        """What `Scorer` says of each block. A Dataset; actors that die are started again, and their blocks are anew."""
        n_cpus = int(self._ray.cluster_resources().get("CPU", 1))
        actors = min(self._actors or n_cpus, n_parts)
        cpus = min(max(1, n_cpus // actors), self._smallest())
        return users.map_batches(
            Scorer,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=self._ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            fn_constructor_args=(
                type(lists.model),
                place,
                lists.N,
                lists.value,
                lists.min_value,
                lists.users_per_part,
                cpus,
            ),
            num_cpus=cpus,
        )

    def _smallest(self) -> int:
        """CPUs of the machine that has the fewest."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(min((cpus for cpus in nodes if cpus), default=1)))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Ray, silent; what is started here ends here."""
        context = self._ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # its threads import fsspec's HTTP at once: without aiohttp, one that comes second fails now and then
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
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data itself does
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
        """Within the `with` block, an error of recvae in an actor is that error, and any other one an EngineError."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            *_, first = _causes(error)
            if isinstance(first, RecvaeError):
                raise type(first)(_line(first)) from error
            raise EngineError(f"Expected Ray to make all parts, got: {_reason(error)}; nothing was written.") from error


class Scorer:
    """An actor: a model, loaded once, that makes a file in the folder `place` of each block of users."""

    def __init__(
        self,
        kind: type[Recommender],
        place: Path,
        N: int,
        value: str | None,
        min_value: float | None,
        users_per_part: int,
        threads: int,
    ):
        torch.set_num_threads(threads)
        # that the class came along makes it known, wherever it is from
        model = kind.load(place / MODEL, device="cpu")
        self._lists = Lists(model, model.known_items(), N, value, min_value, users_per_part)
        self._place = place

    def __call__(self, events: pa.Table) -> Iterator[pa.Table]:
        """The file of a block, as a row that tells of it; none where the block is empty."""
        order = [(name, "ascending") for name in ("user", "item", "value") if name in events.column_names]
        if "value" not in events.column_names:
            order = order[:1]
        batches = events.sort_by(order).to_batches()
        made = self._lists.part(by_users(batches, cycle(block_sizes(self._lists.users_per_part))), lambda users: None)
        if made is not None:
            part, content = made
            write_whole(self._place / part.file, content)
            yield pa.table({"part": [json.dumps(asdict(part))]})


def _named(
    read: Callable[[pa.Table], Iterator[pa.Table]], schema: pa.Schema | None
) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Row groups -> columns user, item and, for a third one, value; or those of a schema, empty where not here.

    A function in a function goes to workers as code: those that only read need not import this module, and torch.
    """

    def events(groups: pa.Table) -> Iterator[pa.Table]:
        for rows in read(groups):
            values = [column.cast(pa.float64()) for column in rows.columns[2:]]
            table = pa.table([*rows.columns[:2], *values], ["user", "item", "value"][: rows.num_columns])
            if schema is not None:
                own = {name: table[name] for name in table.column_names}
                filled = [
                    own[field.name].cast(field.type) if field.name in own else pa.nulls(len(table), field.type)
                    for field in schema
                ]
                table = pa.table(filled, schema=schema)
            yield table

    return events


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's loggers keep silent: what goes wrong is an error, which is raised."""
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
    """An error of Ray, and what it says that it came from, to the first one."""
    cause: Any = error
    while isinstance(cause, BaseException):
        yield cause
        inner = getattr(cause, "cause", None) or cause.__cause__
        cause = inner if str(inner or "").strip() else None  # Ray Data adds marks of its own, which say nothing


def _reason(error: BaseException) -> str:
    """What it came from, in one line."""
    *_, first = _causes(error)
    return f"{type(first).__name__}: {_line(first)}".rstrip(".: ")


def _line(error: BaseException) -> str:
    """The line that tells most: Ray puts advice below what was raised, and a trace above what it tells itself."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1 if lines[0].startswith("ray::") else 0]


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default of today, set to silence a warning
    ray = require("ray", extra="ray", purpose="Scoring on a cluster")
    require("ray.data", extra="ray", purpose="Scoring on a cluster")
    return ray
