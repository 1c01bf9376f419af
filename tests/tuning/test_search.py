import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

import recvae
from recvae import MultVAE, Recommender, evaluate, per_user_split, tune
from recvae.datasets.sample import make_sample
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
    OutputError,
    TrainingError,
    UnknownNameError,
    UnknownUsersError,
)
from recvae.models.autoencoder.options import RATE
from recvae.models.base.params import get_params, hyper, parameters, search_space
from recvae.models.base.spaces import uniform
from recvae.models.baselines import BPR, ItemKNN, Popularity
from recvae.training.callbacks import Epoch

optuna = pytest.importorskip("optuna")
pytest.importorskip("implicit")


@pytest.fixture(scope="module", autouse=True)
def models_of_their_own():
    """The classes of these tests are not for others to meet."""
    before = dict(Recommender.registry)
    yield
    Recommender.registry.clear()
    Recommender.registry.update(before)


@pytest.fixture(scope="module")
def toys():
    @parameters
    class Toy(Popularity):
        """Popularity that gets worse the farther x is from 0.7, in so many epochs as a test wants."""

        x: float = hyper(0.1, "how good", low=0, high=1, search=uniform(0, 1))
        wide: int = hyper(3, "of no matter", low=1)
        n_epochs: ClassVar[int] = 0
        fits: ClassVar[int] = 0
        breaks: ClassVar[dict[int, BaseException]] = {}  # at which fits, from 0, and by what
        epochs: ClassVar[list[int]] = []  # those of each fit

        def _fit(self, rows, run):
            number, Toy.fits = Toy.fits, Toy.fits + 1
            if number in self.breaks:
                raise self.breaks[number]
            self.epochs.append(0)
            for epoch in range(1, self.n_epochs + 1):
                self.epochs[-1] = epoch
                run.callbacks[0].on_epoch_end(Epoch(epoch, 1.0, 0.0, 1.0, 0.0, self.curve(epoch), 0.1))
            return super()._fit(rows, run)

        def curve(self, epoch):
            return 1 - abs(self.x - 0.7)

        def _score(self, rows):
            return super()._score(rows).roll(int(10 * abs(self.x - 0.7)), dims=1)

    @contextlib.contextmanager
    def breaking(breaks=None):
        Toy.fits, Toy.breaks = 0, breaks or {}
        Toy.epochs.clear()
        try:
            yield Toy
        finally:
            Toy.breaks = {}

    return breaking


@pytest.fixture
def toy(toys):
    with toys() as made:
        yield made


def found(tuned):
    """What a search comes to, but for its seconds."""
    return [replace(trial, seconds=0.0) for trial in tuned.trials]


def test_the_best_on_validation_users_is_found(split, toy):
    tuned = tune(toy, split, 15, metric="recall@5", fixed={"wide": 4})
    first, best = tuned.trials[0], max(tuned.trials, key=lambda trial: trial.value)
    assert first.params == {"x": 0.1}
    assert abs(tuned.params["x"] - 0.7) < 0.1 < abs(first.params["x"] - 0.7)
    assert tuned.params == best.params | {"wide": 4}
    assert (tuned.model.x, tuned.model.wide) == (tuned.params["x"], 4)
    # the value is that of these users, by anybody's count
    again = tuned.model.fit(split.train)
    assert evaluate(again, split.valid, ["recall@5"])["recall@5"].mean == tuned.value == best.value > first.value
    assert tuned.importance == {"x": 1.0}
    assert tuned.seconds == pytest.approx(sum(trial.seconds for trial in tuned.trials))
    assert [trial.number for trial in tuned.trials] == list(range(15))
    assert len({trial.params["x"] for trial in tuned.trials}) > 10


def test_proposals_stay_in_their_spaces_and_the_seed_decides(split):
    one, same, other = (tune(ItemKNN, split, 6, seed=seed) for seed in (0, 0, 1))
    assert found(one) == found(same) != found(other)
    assert one.trials[0].params == {"weighting": "cosine", "K": 100}
    for trial in one.trials:
        assert 5 <= trial.params["K"] <= 500
        assert isinstance(trial.params["K"], int)
    model = tune(MultVAE, split, 2, fixed={"epochs": 1}, seed=5).model
    assert (model.random_state, model.epochs) == (5, 1)
    assert isinstance(model.hidden_dims, tuple)


def test_only_training_and_validation_are_looked_at():
    """Neither the test nor what is refitted on: they may be missing."""
    split = per_user_split(make_sample(n_users=200, n_items=60).interactions)
    blind = replace(split, test=None, refit=None)
    fitted_on = []

    class Watched(ItemKNN):
        def _fit(self, rows, run):
            fitted_on.append(rows.nnz)
            return super()._fit(rows, run)

    assert found(tune(Watched, blind, 2)) == found(tune(Watched, split, 2))
    assert set(fitted_on) == {split.train.n_events}
    assert tune(BPR, blind, 1, fixed={"iterations": 2}).value > 0


# stopping, and going on ----------------------------------------------------------------------------------------------


def test_a_study_goes_on_and_comes_to_the_same(split, toy, tmp_path):
    file, lines = tmp_path / "new" / "tune.db", []
    assert len(tune(toy, split, 3, study=file).trials) == 3
    resumed = tune(toy, split, 12, study=str(file), log=lines.append)
    assert toy.fits == len(resumed.trials) == 12
    assert [line.split(",")[0] for line in lines] == [f"trial {number}" for number in range(3, 12)]
    assert found(resumed) == found(tune(toy, split, 12))
    fits = toy.fits
    assert found(tune(toy, split, 5, study=file)) == found(resumed)  # there are more already
    assert toy.fits == fits


@pytest.mark.parametrize("at", [0, 11])
def test_a_trial_that_died_is_not_counted(at, split, toys, tmp_path):
    file = tmp_path / "tune.db"
    with toys({at: KeyboardInterrupt()}) as toy, pytest.raises(KeyboardInterrupt):
        tune(toy, split, 14, study=file)
    with toys() as toy:
        resumed = tune(toy, split, 14, study=file)
        assert toy.fits == 14 - at
        assert found(resumed) == found(tune(toy, split, 14))


def test_a_search_whose_process_is_killed_goes_on(tmp_path):
    file = tmp_path / "tune.db"
    code = f"""
        import recvae, time
        from recvae.models.baselines import ItemKNN
        from recvae.datasets.sample import make_sample

        class Slow(ItemKNN):
            def _fit(self, rows, run):
                time.sleep(self.K != 100 and 600)
                return super()._fit(rows, run)

        Slow.__name__ = "ItemKNN"
        split = recvae.strong_split(make_sample(n_users=400, n_items=80).interactions, heldout_users=60)
        recvae.tune(Slow, split, 4, study={str(file)!r}, log=lambda line: print(line, flush=True))
    """
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    child = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().startswith("trial 0")
    deadline = time.monotonic() + 60
    while _states(file) != ["COMPLETE", "RUNNING"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    split = recvae.strong_split(make_sample(n_users=400, n_items=80).interactions, heldout_users=60)
    assert found(tune(ItemKNN, split, 4, study=file)) == found(tune(ItemKNN, split, 4))


def _states(file):
    connection = sqlite3.connect(file, timeout=60)
    with contextlib.closing(connection):
        return [state for (state,) in connection.execute("SELECT state FROM trials ORDER BY trial_id")]


def test_no_trial_begins_after_the_time(split, toy):
    assert len(tune(toy, split, 50, timeout=1e-9).trials) == 1
    assert len(tune(toy, split, 3, timeout=3600).trials) == 3


def test_another_search_is_refused(split, toy, tmp_path):
    file = tmp_path / "tune.db"
    tune(toy, split, 1, study=file, name="mine")
    other = recvae.strong_split(make_sample(n_users=400, n_items=80).interactions, heldout_users=50)

    class Wider(toy):
        pass

    for arguments, why in (
        ((Wider, split, {}), "model is Toy, and here Wider"),
        ((toy, split, {"metric": "ndcg@10"}), "metric is ndcg@100, and here ndcg@10"),
        ((toy, other, {}), "data is "),
        ((toy, split, {"fixed": {"wide": 9}}), "wide is fixed at 3, and here fixed at 9"),
    ):
        model, data, more = arguments
        with pytest.raises(InvalidDataError, match=f"to be of the same search, but its {why}"):
            tune(model, data, 2, study=file, name="mine", **more)
    narrower = parameters(
        type("Toy", (toy,), {"x": hyper(0.1, "less", search=uniform(0, 0.5)), "__annotations__": {"x": float}})
    )
    with pytest.raises(InvalidDataError, match=r"x is searched in Range\(low=0, high=1.*and here .*high=0\.5"):
        tune(narrower, split, 2, study=file, name="mine")
    # under a name of its own there is room for it
    assert len(tune(Wider, split, 1, study=file).trials) == 1
    assert len(tune(toy, split, 2, study=file, name="mine").trials) == 2


def test_what_is_no_study_is_refused(split, toy, tmp_path):
    file = tmp_path / "tune.db"
    file.write_text("x = 3\n" * 1000)
    with pytest.raises(InvalidDataError, match="to be a new file or a study in SQLite"):
        tune(toy, split, 1, study=file)
    assert file.read_text() == "x = 3\n" * 1000
    with pytest.raises(OutputError, match="Expected a file that can be written"):
        tune(toy, split, 1, study=tmp_path)


LIES = {
    "a search that is a list": "update study_user_attributes set value_json = '[1]'",
    "a search that is no JSON": "update study_user_attributes set value_json = '{'",
    "a deep search": f"update study_user_attributes set value_json = '{'[' * 9000}'",
    "an infinite value": "update trial_values set value = 9e999, value_type = 'INF_POS'",
    "a value that is text": "update trial_values set value = 'x'",
    "a value above 1": "update trial_values set value = 7",
    "no value": "delete from trial_values",
    "no distribution": "update trial_params set distribution_json = '{}'",
    "a parameter that is text": "update trial_params set param_value = 'x'",
    "a parameter out of range": "update trial_params set param_value = -5",
    "a parameter of another name": "update trial_params set param_name = 'odd'",
    "no parameters": "delete from trial_params",
    "no notes": "delete from trial_user_attributes",
    "an odd state": "update trials set state = 'ODD'",
    "a time that is a number": "update trials set datetime_complete = 3",
    "no time": "update trials set datetime_start = null",
    "an odd number": "update trials set number = 'x'",
    "no study": "delete from studies",
    "a report that is text": "insert into trial_intermediate_values "
    "(trial_id, step, intermediate_value, intermediate_value_type) values (1, 'x', 'y', 'FINITE')",
}


@pytest.fixture(scope="module")
def study_file(split, toys, tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "tune.db"
    with toys() as toy:
        tune(toy, split, 2, study=file)
    return file


@pytest.mark.parametrize("lie", LIES)
def test_a_study_whose_contents_lie_is_refused(lie, study_file, split, toy, tmp_path):
    file = tmp_path / "tune.db"
    file.write_bytes(study_file.read_bytes())
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute(LIES[lie])
        database.commit()
    with pytest.raises(InvalidDataError, match="to hold a study as a search has written it, got one that is damaged"):
        tune(toy, split, 3, study=file)
    assert toy.fits <= 1


def test_a_study_on_a_full_disk_is_an_error_of_the_output(split, toy, tmp_path, monkeypatch):
    def full(*given, **more):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise optuna.exceptions.StorageInternalError("not kept") from error

    monkeypatch.setattr(optuna.study.Study, "tell", full)
    with pytest.raises(OutputError, match="Expected a study that can be written to"):
        tune(toy, split, 1, study=tmp_path / "tune.db")


# what goes wrong, and what is not worth going on with -----------------------------------------------------------------


def test_a_trial_that_fails_is_noted_and_the_search_goes_on(split, toys, tmp_path):
    file = tmp_path / "tune.db"
    with toys({0: TrainingError("The loss is gone."), 2: MemoryError()}) as toy:
        tuned = tune(toy, split, 4, study=file)
        assert [trial.state for trial in tuned.trials] == ["failed", "complete", "failed", "complete"]
        assert [trial.note for trial in tuned.trials] == ["The loss is gone.", "", "MemoryError", ""]
        assert tuned.trials[0].value is None
        assert len(tune(toy, split, 4, study=file).trials) == 4  # they count
        assert toy.fits == 4


def test_where_all_fail_there_is_an_error(split, toys):
    errors = {number: TrainingError(f"Number {number}.") for number in range(3)}
    with toys(errors) as toy, pytest.raises(TrainingError, match=r"got 3 that failed; the last: Number 2\."):
        tune(toy, split, 3)


def test_what_is_no_failure_of_the_settings_ends_the_search(split, toys):
    with toys({1: ZeroDivisionError()}) as toy, pytest.raises(ZeroDivisionError):
        tune(toy, split, 3)
    with pytest.raises(UnknownUsersError, match="BPR has factors for the users it was trained on only"):
        tune(BPR, split, 3)


def test_trials_worse_than_the_median_end_early(split, toy, monkeypatch):
    monkeypatch.setattr(toy, "n_epochs", 14)
    tuned = tune(toy, split, 20)
    reached = {}  # what the complete trials had at any epoch: their curves are flat
    for trial, epochs in zip(tuned.trials, toy.epochs, strict=True):
        good = toy(**trial.params).curve(0)
        worse = trial.number >= 5 and good < np.median(list(reached.values()))
        assert trial.state == ("pruned" if worse else "complete")
        assert (epochs < 14) == (trial.value is None) == bool(trial.note) == worse
        if worse:
            assert trial.note == f"ended after epoch {epochs}, with NDCG@100 {good:.4f}"
        else:
            reached[trial.number] = good
    assert 3 < len(reached) < 20
    assert tuned.params["x"] == max((trial for trial in tuned.trials if trial.value), key=lambda t: t.value).params["x"]


def test_a_slow_start_is_forgiven(split, toy, monkeypatch):
    """Annealed and slowly learning trials are behind for some epochs; nobody is ended for these."""
    monkeypatch.setattr(toy, "n_epochs", 14)
    monkeypatch.setattr(toy, "curve", lambda self, epoch: 1.0 if epoch > 9 else 1 / (2 + self.fits))
    assert {trial.state for trial in tune(toy, split, 8).trials} == {"complete"}


def test_an_autoencoder_is_ended_early(split):
    """For want of learning: at the lowest rates nothing is learnt in time."""
    fixed = {name: value for name, value in get_params(MultVAE()).items() if name in search_space(MultVAE)}
    fixed |= {"epochs": 15, "batch_size": 60, "latent_dim": 8, "hidden_dims": ()}
    del fixed["learning_rate"]

    def rate(params):
        return params["learning_rate"] or RATE

    tuned = tune(MultVAE, split, 10, fixed=fixed)
    for trial in tuned.trials:
        if trial.state == "pruned":
            assert rate(trial.params) < rate(tuned.params)
    assert {trial.state for trial in tuned.trials} == {"complete", "pruned"}


def test_what_cannot_be_searched_for(split, toy, monkeypatch):
    for arguments, error, message in (
        ((Popularity, split), InvalidParameterError, "Popularity, where none has a space or all are fixed"),
        ((toy, split, 0), InvalidParameterError, "trials to be an integer of at least 1, got 0"),
        ((toy(), split), InvalidTypeError, "a class of models such as MultVAE, got .*Toy"),
    ):
        with pytest.raises(error, match=message):
            tune(*arguments)
    for more, error, message in (
        ({"fixed": {"x": 0.5}}, InvalidParameterError, "all are fixed"),
        ({"fixed": {"widht": 3}}, UnknownNameError, "hyper-parameter of Toy called 'widht'; did you mean wide"),
        ({"fixed": {"wide": 0}}, InvalidParameterError, r"wide=0\): expected a value of at least 1 that 64 bits"),
        ({"metric": "ndgc@10"}, UnknownNameError, "ndgc"),
        ({"timeout": 0}, InvalidParameterError, "timeout to be a number of seconds above 0, got 0"),
        ({"seed": -1}, InvalidParameterError, "seed"),
    ):
        with pytest.raises(error, match=message):
            tune(toy, split, 1, **more)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r'run: pip install "recvae\[tune\]"'):
        tune(toy, split, 1)


def test_optuna_is_left_as_it_was_and_says_nothing(split, toy, capfd):
    before = optuna.logging.get_verbosity()
    tune(toy, split, 2)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
