"""Options inside a config object are reached wherever hyper-parameters are: by `training__impl`."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

import recvae
from recvae import Recommender
from recvae.benchmark.grids import GRIDS, OWN_MODELS, models_to_try
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.models.base.file_tensors import taken
from recvae.models.base.model_file import read_model, write_model
from recvae.models.base.params import (
    check_params,
    config,
    fitted,
    flat_params,
    frozen_parameters,
    get_params,
    hyper,
    options,
    param_text,
    parameters,
    parse_param,
    search_space,
    with_params,
)
from recvae.models.base.spaces import uniform
from recvae.tuning.search import tune


@frozen_parameters
class Training:
    """How it is trained."""

    impl: str = hyper("auto", "how", choices=("auto", "chunked"), file_values={"chunked": "exact"})
    decay: float = hyper(0.5, "how far popularity counts", low=0, high=2, search=uniform(0.1, 1), file_key="rate")
    tied: bool = hyper(False, "one table", file_key="tables", file_values={True: "tied", False: "separate"})
    parallel: str = hyper("data", "what is shared", choices=("data", "tensor"), run_option=True)


@parameters
class Toy(Recommender):
    """Items by a power of their counts.

    References
    ----------
    None.
    """

    width: int = hyper(3, "of no matter", low=1)
    training: Training = config(Training, "how the model is trained", decay=0.25)
    counts_: torch.Tensor = fitted()

    def _fit(self, rows, run):
        counts = np.bincount(rows.indices, minlength=rows.shape[1])
        return {"counts_": torch.from_numpy((counts**self.training.decay).astype(np.float32))}

    def _tensors(self):
        return {"counts": self.counts_}

    def _restore(self, tensors, n_items):
        return {"counts_": taken(tensors, "counts", (n_items,))}

    def _score(self, rows):
        return self.counts_.repeat(rows.shape[0], 1)


del Recommender.registry["Toy"]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(Recommender.registry, "Toy", Toy)
    for name in list(GRIDS):
        monkeypatch.delitem(GRIDS, name)
    monkeypatch.setitem(GRIDS, "Toy", [{}, {"width": 4}])
    monkeypatch.setitem(OWN_MODELS, "Toy", Toy)


@pytest.fixture(scope="module")
def data():
    return make_sample(n_users=40, n_items=20).interactions


def test_a_config_is_immutable_and_equal_by_value():
    one = Training(impl="chunked")
    assert one == Training(impl="chunked") == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) != Training()
    assert (repr(one), repr(Training())) == ("Training(impl='chunked')", "Training()")
    with pytest.raises(AttributeError):
        one.impl = "auto"
    with pytest.raises(TypeError):
        Training("chunked")
    with pytest.raises(InvalidTypeError, match="'imp'; did you mean impl"):
        Training(imp="chunked")


def test_options_are_parameters_as_scikit_learn_names_them():
    model = Toy(training=Training(impl="chunked"))
    assert model.get_params(deep=False) == {"values": None, "width": 3, "training": Training(impl="chunked")}
    nested = {
        "training__impl": "chunked",
        "training__decay": 0.5,
        "training__tied": False,
        "training__parallel": "data",
    }
    assert model.get_params() == model.get_params(deep=False) | nested
    assert Toy().training.decay == 0.25  # the model's own default
    assert Toy(**model.get_params(deep=False)).get_params() == model.get_params()
    assert with_params(Toy(width=7), {"training__tied": True}).get_params(deep=False) == {
        "values": None,
        "width": 7,
        "training": Training(decay=0.25, tied=True),
    }


def test_options_are_set_by_their_full_names():
    model = Toy()
    before = model.training
    assert model.set_params(training__impl="chunked", training__decay=1.0, width=2) is model
    assert (model.training, model.width) == (Training(impl="chunked", decay=1.0), 2)
    assert before == Training(decay=0.25)
    model.set_params(training__tied=True, training=Training(decay=0.75))  # first the config, then its option
    assert model.training == Training(decay=0.75, tied=True)


def test_scikit_learn_clones_a_model_with_a_config():
    clone = pytest.importorskip("sklearn.base").clone
    model = Toy(training=Training(impl="chunked"))
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("name", ["impl", "training__impl"])
def test_a_constructor_says_where_an_option_goes(name):
    with pytest.raises(
        InvalidTypeError, match=rf"no keyword {name}; give training=Training\(impl=\.\.\.\), or .*training__impl"
    ):
        Toy(**{name: "chunked"})


@pytest.mark.parametrize(
    ("name", "full"), [("impl", "training__impl"), ("rate", "training__decay"), ("tables", "training__tied")]
)
def test_a_short_or_a_former_name_is_refused_with_the_full_one(name, full, data, capsys):
    for call in (
        lambda: Toy().set_params(**{name: "x"}),
        lambda: parse_param(Toy(), name, "x"),
        lambda: models_to_try("Toy", {name: "x"}),
        lambda: tune(Toy, recvae.strong_split(data, 5), 1, fixed={name: "x"}),
    ):
        with pytest.raises(UnknownNameError, match=rf"called '{name}'; it is {full}\."):
            call()
    assert main(["train", "--model", "Toy", "--input", "-", "--param", f"{name}=x", "--out", "m"]) != 0
    assert f"it is {full}." in capsys.readouterr().err
    with pytest.raises(UnknownNameError, match="called 'widht'; did you mean width"):
        Toy().set_params(widht=3)


@pytest.mark.parametrize(
    ("training", "error", "message"),
    [
        ("fast", InvalidTypeError, r"Toy\(training='fast'\): expected Training\(\.\.\.\), got str"),
        ({"impl": "auto"}, InvalidTypeError, r"expected Training\(\.\.\.\), got dict"),
        (Training(decay=3), InvalidParameterError, r"Toy\(training__decay=3\): expected a value from 0 to 2"),
        (Training(decay=True), InvalidTypeError, "expected a number, got bool"),
        (Training(tied=1), InvalidTypeError, "expected True or False, got int"),
        (Training(tied="tied"), InvalidTypeError, "expected True or False, got str"),
        (Training(impl="exact"), UnknownNameError, "no training__impl of Toy called 'exact'; known are auto, chunked"),
    ],
)
def test_what_is_out_of_range_is_named_at_fit(training, error, message, data):
    with pytest.raises(error, match=message):
        Toy(training=training).fit(data)


def test_text_of_a_command_line():
    for name, value in {"training__impl": "chunked", "training__decay": 0.5, "training__tied": True}.items():
        assert parse_param(Toy(), name, param_text(value)) == value
    assert parse_param(Toy(), "training__tied", "false") is False
    with pytest.raises(InvalidParameterError, match="Expected True or False as training__tied, got 'yes'"):
        parse_param(Toy(), "training__tied", "yes")
    with pytest.raises(InvalidParameterError, match="Expected one option of training, such as training__impl"):
        parse_param(Toy(), "training", "fast")
    assert set(options(Toy)) == {"values", "width"} | {f"training__{name}" for name in options(Training)}
    assert search_space(Toy) == {"training__decay": uniform(0.1, 1)}
    assert [model.training.tied for model in models_to_try("Toy", {"training__tied": "true"})] == [True, True]


def test_files_have_flat_keys(data, tmp_path):
    model = Toy(training=Training(impl="chunked", tied=True, parallel="tensor", decay=1)).fit(data)
    model.save(tmp_path / "model")
    tensors, description = read_model(tmp_path / "model")
    kept = {"values": None, "width": 3, "impl": "exact", "rate": 1.0, "tables": "tied"}
    assert description["parameters"] == kept
    assert flat_params(model) == kept | {"parallel": "tensor"}
    again = recvae.load(tmp_path / "model")
    assert again.training == Training(impl="chunked", tied=True, decay=1.0)
    assert get_params(again)["training"].parallel == "data"  # of the machine, not of the model
    for changes in (
        {"impl": "chunked"},
        {"tables": True},
        {"training__impl": "exact"},
        {"parallel": "data"},
        {"decay": 1.0},
    ):
        write_model(tmp_path / "odd", tensors, description | {"parameters": kept | changes})
        with pytest.raises(InvalidDataError, match="cannot restore"):
            recvae.load(tmp_path / "odd")
    write_model(tmp_path / "few", tensors, description | {"parameters": {"impl": "exact"}})
    assert recvae.load(tmp_path / "few").training == Training(impl="chunked", decay=0.25)


def test_searches_and_studies_reach_options(data, tmp_path):
    pytest.importorskip("optuna")
    split = recvae.strong_split(data, 10)
    study = tmp_path / "study.db"
    first = tune(Toy, split, 2, fixed={"training__impl": "chunked"}, study=study)
    assert first.model.training.impl == "chunked"
    assert first.params.keys() == {"training__decay", "training__impl"}
    assert first.trials[0].params == {"training__decay": 0.25}
    again = tune(Toy, split, 3, fixed={"training__impl": "chunked"}, study=study)
    assert again.trials[:2] == first.trials
    with pytest.raises(InvalidDataError, match="its impl is fixed at exact, and here fixed at auto"):
        tune(Toy, split, 3, study=study)
    optuna = pytest.importorskip("optuna")
    stored = optuna.load_study(study_name="Toy", storage=f"sqlite:///{study}").trials
    assert all(trial.params.keys() == {"rate"} for trial in stored)


def test_command_lines_and_their_files_reach_options(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    cells = data.matrix.tocoo()
    lines = [f"{user},{item}\n" for user, item in zip(cells.row, cells.col, strict=True)]
    (tmp_path / "events.csv").write_text("user,item\n" + "".join(lines))
    (tmp_path / "toy.toml").write_text('model = "Toy"\nparam = ["training__decay=0.75", "training__tied=true"]\n')
    given = [
        "train",
        "--config",
        "toy.toml",
        "--input",
        "events.csv",
        "--out",
        "model",
        "--param",
        "training__impl=chunked",
    ]
    assert main([*given, "--json"]) == 0
    assert recvae.load("model").training == Training(impl="chunked", decay=0.75, tied=True)
    assert json.loads(capsys.readouterr().out)["parameters"]["tables"] == "tied"


def test_the_docstring_has_the_config_before_other_sections():
    section = "    Parameters\n    ----------\n    values : 'binary' or 'log1p' or 'raw' or None, default None\n"
    assert section in Toy.__doc__
    assert "    training : Training, default Training(decay=0.25)\n        How the model is trained.\n" in Toy.__doc__
    assert Toy.__doc__.index("Parameters") < Toy.__doc__.index("References")
    check_params(Toy())
