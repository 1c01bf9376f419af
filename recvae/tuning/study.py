"""A study: the trials of a search, kept by Optuna in memory or in an SQLite file. Only this module uses Optuna."""

from __future__ import annotations

import math
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from recvae.errors import InvalidDataError, OutputError, RecvaeError, shown
from recvae.models.base.params import param_text
from recvae.models.base.spaces import Range, Space
from recvae.utils.files import check_writable, make_folder
from recvae.utils.optional import require
from recvae.utils.paths import output_path, real_path

# complete trials before pruning by their median starts, epochs of a trial before it may be pruned, and complete
# trials before importances are estimated
FULL_TRIALS, FREE_EPOCHS, ENOUGH_TRIALS = 5, 10, 10
SQLITE = b"SQLite format 3\0"
TABLES = {"studies", "trials", "trial_params", "trial_values", "version_info"}  # some of Optuna's


@dataclass(frozen=True)
class Trial:
    """One fit of a search.

    Attributes
    ----------
    params : dict[str, Any]
        Values of the hyper-parameters that were searched for.
    value : float or None
        Mean of the metric over validation users; None unless the trial is complete.
    state : str
        "complete", "pruned" (stopped early, worse than the median of earlier trials) or "failed".
    note : str
        The reason, if the trial is not complete; else empty.
    """

    number: int
    params: dict[str, Any]
    value: float | None
    state: str
    seconds: float
    note: str


class Study:
    """Proposes trials by the tree-structured Parzen estimator and stores their results.

    All methods raise InvalidDataError if the file of the study is damaged.
    """

    def __init__(
        self, study: Any, path: str | Path | None, space: Mapping[str, Space], keys: Mapping[str, str], seed: int
    ):
        self._study, self._path, self._space, self._seed = study, path, space, seed
        self._keys = {name: keys[name] for name in space}  # name of a hyper-parameter -> its name in the study
        self._names = {key: name for name, key in self._keys.items()}
        self._distributions = {keys[name]: _distribution(where) for name, where in space.items()}

    def ask(self, defaults: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Propose the next trial; the first one has the defaults. -> Optuna's trial, its hyper-parameters"""
        import optuna

        with _read_from(self._path):
            states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
            n_done = len(self.trials())
            if n_done == 0 and optuna.trial.TrialState.WAITING not in states:
                stored = {self._keys[name]: _told(self._space[name], value) for name, value in defaults.items()}
                self._study.enqueue_trial(stored)
            # a seed for each trial: a resumed study proposes the same as an uninterrupted one
            seed = int(np.random.SeedSequence([self._seed, n_done]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=False)
            trial = self._study.ask(self._distributions)
            return trial, self._params(trial)

    def tell(self, trial: Any, value: float | None = None, state: str = "complete", note: str = "") -> None:
        """Record how a trial ended."""
        with _read_from(self._path):
            trial.set_user_attr("note", note)
            self._study.tell(trial, value, _states()[state])

    def report(self, trial: Any, epoch: int, metric: float) -> bool:
        """Record the metric of a trial after an epoch. -> whether to prune it"""
        with _read_from(self._path):
            trial.report(metric, epoch)
            return bool(trial.should_prune())

    def trials(self) -> list[Trial]:
        """The finished trials, in order. A killed trial is still running according to the file, and does not count."""
        names = {state: name for name, state in _states().items()}
        with _read_from(self._path):
            finished = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in names]
            return [self._trial(number, trial, names[trial.state]) for number, trial in enumerate(finished)]

    def importance(self) -> dict[str, float]:
        """The share of each hyper-parameter in what distinguishes the best trials; empty with few complete trials."""
        import optuna

        values = [trial.value for trial in self.trials() if trial.state == "complete"]
        if len(values) < ENOUGH_TRIALS or len(set(values)) == 1:
            return {}
        with _read_from(self._path):
            shares = optuna.importance.get_param_importances(self._study)
        return {self._names[key]: share for key, share in shares.items()}

    def _trial(self, number: int, trial: Any, state: str) -> Trial:
        """A finished trial, checked because SQLite allows text in columns of numbers. Raises ValueError."""
        value: Any = trial.value if state == "complete" else None
        if state == "complete" and not (_is_number(value) and 0 <= value <= 1):  # as all metrics are
            raise ValueError(f"trial {number} has the value {shown(value)}")
        reports = trial.intermediate_values  # later trials are pruned by these
        if not all(type(epoch) is int and _is_number(metric) for epoch, metric in reports.items()):
            raise ValueError(f"trial {number} has reports of epochs that are no numbers")
        if trial.duration is None or not isinstance(trial.user_attrs.get("note"), str):
            raise ValueError(f"trial {number} has no time or no note")
        seconds, note = trial.duration.total_seconds(), trial.user_attrs["note"]
        return Trial(number, self._params(trial), value, state, seconds, note)

    def _params(self, trial: Any) -> dict[str, Any]:
        """The hyper-parameters of one of Optuna's trials. Raises ValueError if they are outside of the space."""
        if trial.distributions != self._distributions:
            raise ValueError(f"trial {shown(trial.number)} has hyper-parameters of another search")
        params = {self._names[key]: stored for key, stored in trial.params.items()}
        for name, stored in params.items():
            space = self._space[name]
            if isinstance(space, Range) and not (_is_number(stored) and space.low <= stored <= space.high):
                raise ValueError(f"trial {shown(trial.number)} has {name}={shown(stored)}")
        return {name: _value(self._space[name], stored) for name, stored in params.items()}


@contextmanager
def open_study(
    path: str | Path | None,
    name: str,
    asked: Mapping[str, str],
    space: Mapping[str, Space],
    keys: Mapping[str, str],
    seed: int,
) -> Iterator[Study]:
    """Open a study, new or resumed: in memory, or by its name in an SQLite file.

    Parameters
    ----------
    asked : Mapping[str, str]
        Description of the search; a resumed study has to have the same one.
    keys : Mapping[str, str]
        Hyper-parameter -> its name in the study.

    Raises
    ------
    MissingDependencyError
    OutputError
    InvalidDataError
        If the file is not a study, is damaged, or is the study of another search.
    """
    optuna = _optuna()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None
    try:
        storage = optuna.storages.InMemoryStorage() if path is None else _file(path)
        with _read_from(path):
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=FULL_TRIALS, n_warmup_steps=FREE_EPOCHS),
            )
            _check_same(study, path, asked)
        yield Study(study, path, space, keys, seed)
    finally:
        optuna.logging.set_verbosity(verbosity)
        if path is not None and storage is not None:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _read_from(path: str | Path | None) -> Iterator[None]:
    """Re-raise any error of SQLite, SQLAlchemy, JSON or Optuna as InvalidDataError, or OutputError if writing fails."""
    try:
        yield
    except Exception as error:
        if path is None or isinstance(error, (RecvaeError, MemoryError)):
            raise
        reason = shown(" ".join(f"{type(error).__name__}: {error}".split()), 200)
        if _is_full(error):
            raise OutputError(f"Expected a study that can be written to, got {path}: {reason}.") from error
        raise InvalidDataError(
            f"Expected {path} to hold a study as a search has written it, got one that is damaged: {reason}; take "
            f"another file, or another name in it."
        ) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether the error, or one in its chain of causes, is SQLite's for a full disk or a read-only file."""
    codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
    while error is not None and getattr(error, "sqlite_errorcode", None) not in codes:
        error = error.__cause__ or error.__context__
    return error is not None


def check_study(path: str | os.PathLike[str]) -> Path:
    """Check that a file can hold a study: it does not exist yet, is empty, or is Optuna's.

    Returns
    -------
    Path
        Its path.

    Raises
    ------
    InvalidDataError
        For any other file; it is not changed.
    OutputError
    """
    file = output_path(path)
    check_writable(file)
    if file.exists() and file.stat().st_size and not _tables(file) >= TABLES:
        raise _no_study(file)
    return file


def _tables(path: Path) -> set[str]:
    """The names of the tables of an SQLite file, which is not changed; empty if it is not an SQLite file."""
    with path.open("rb") as file:
        if file.read(len(SQLITE)) != SQLITE:
            return set()
    database = real_path(path)
    # without a log next to it, SQLite need not make one to read
    mode = "mode=ro" if Path(f"{database}-wal").exists() else "mode=ro&immutable=1"
    uri = f"file:{urllib.parse.quote(str(database))}?{mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (sqlite3.Error, UnicodeError):  # damaged, or table names that are not text
        return set()


def _no_study(path: Path) -> InvalidDataError:
    return InvalidDataError(
        f"Expected {path} to be a new file or a study in SQLite, got another; take another name for it."
    )


def _file(given: str | os.PathLike[str]) -> Any:
    import optuna
    import sqlalchemy

    path = check_study(given)
    make_folder(path.parent)

    def connect() -> sqlite3.Connection:  # by path: in a URL, ? and % are special, and so is :memory:
        return sqlite3.connect(real_path(path), check_same_thread=False)

    try:
        return optuna.storages.RDBStorage("sqlite:///study", engine_kwargs={"creator": connect})
    except (sqlalchemy.exc.DatabaseError, RuntimeError) as error:
        raise _no_study(path) from error


def _check_same(study: Any, path: str | Path | None, asked: Mapping[str, str]) -> None:
    """Raise InvalidDataError if the study belongs to another search; a new study gets the description `asked`."""
    stored = study.user_attrs.get("asked", {})
    if not isinstance(stored, dict):
        raise TypeError(f"the search is {shown(stored)}")
    if not stored and not study.trials:
        study.set_user_attr("asked", dict(asked))
        return
    for key in [*asked, *stored]:
        this_search, of_study = asked.get(key, "absent"), stored.get(key, "absent")
        if this_search != of_study:
            raise InvalidDataError(
                f"Expected the study {study.study_name!r} in {path} to be of the same search, but its {key} is "
                f"{str(of_study)[:400]}, and here {this_search}; take another file, or another name in it."
            )


def _distribution(space: Space) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(space, Range):
        return CategoricalDistribution([param_text(choice) for choice in space])
    if space.integer:
        return IntDistribution(int(space.low), int(space.high), log=space.log_scale)
    return FloatDistribution(space.low, space.high, log=space.log_scale)


def _told(space: Space, value: Any) -> Any:
    """A hyper-parameter as Optuna stores it: a choice from a list as text."""
    return value if isinstance(space, Range) else param_text(value)


def _value(space: Space, stored: Any) -> Any:
    """The inverse of `_told`. Floats are rounded to three significant digits: more would be noise, and hard to read."""
    if not isinstance(space, Range):
        return {param_text(choice): choice for choice in space}[stored]
    return int(stored) if space.integer else float(f"{stored:.3g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _states() -> dict[str, Any]:
    states = _optuna().trial.TrialState
    return {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}


def _optuna() -> ModuleType:
    return require("optuna", extra="tune", purpose="The search for hyper-parameters")
