"""Who listens to a fit hears what happened, in an order that can be relied on, and changes nothing."""

import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from recvae import EASE, HVamp, HybridVAE, MultDAE, MultVAE, RecVAE, TrainingOptions, fit_split, per_user_split
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidTypeError, MissingDependencyError, OutputError, TrainingError
from recvae.models.base.params import flat_params
from recvae.training.callbacks import Callback, Epoch, JsonLines, TensorBoard, as_callbacks

SMALL = {"latent_dim": 4, "epochs": 2, "random_state": 0}
MODELS = {
    "MultVAE": lambda **more: MultVAE(hidden_dims=(8,), **SMALL | more),
    "MultDAE": lambda **more: MultDAE(**SMALL | more),
    "HVamp": lambda **more: HVamp(hidden_dims=(8,), n_components=5, **SMALL | more),
    "RecVAE": lambda **more: RecVAE(hidden_dim=8, depth=2, **SMALL | more),
    "HybridVAE": lambda **more: HybridVAE(hidden_dim=8, depth=2, l2=10.0, **SMALL | more),
}


class Diary(Callback):
    """Takes everything down."""

    def __init__(self):
        self.heard = []

    def on_fit_start(self, start):
        self.heard.append(("begin", start))

    def on_step_end(self, epoch, step):
        self.heard.append(("step", (epoch, step)))

    def on_epoch_end(self, epoch):
        self.heard.append(("epoch", epoch))

    def on_fit_end(self, error):
        self.heard.append(("end", error))

    def of(self, kind):
        return [what for event, what in self.heard if event == kind]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_that_is_trained_by_gradient_tells_all(name, split, tmp_path):
    diary, functions = Diary(), []
    callbacks = [diary, functions.append, JsonLines(tmp_path / "log.jsonl")]
    model = MODELS[name]().fit(split.train, valid=split.valid, callbacks=callbacks)
    assert functions == diary.of("epoch") == model.history_
    assert {epoch.part for epoch in functions} == {"network"}
    assert [epoch.best for epoch in functions] == np.maximum.accumulate([epoch.valid for epoch in functions]).tolist()
    assert all(epoch.users_per_second > 0 for epoch in functions)
    (start,) = diary.of("begin")
    assert (start.model, start.verb, start.metric, start.valid_users) == (name, "fit", "ndcg@100", 60)
    assert (start.users, start.items, start.events) == (*split.train.matrix.shape, split.train.n_events)
    steps = diary.of("step")
    per_epoch = len(steps) // 2
    assert steps == [(epoch, step) for epoch in (1, 2) for step in range(1, per_epoch + 1)]
    assert per_epoch % 20 == 0  # a twentieth of the users in a step, and RecVAE passes over them four times
    assert [event for event, _ in diary.heard if event != "step"] == ["begin", "epoch", "epoch", "end"]
    assert diary.of("end") == [None]
    assert [line["event"] for line in read(tmp_path / "log.jsonl")] == ["begin", "epoch", "epoch", "end"]


@pytest.mark.parametrize("name", ["MultVAE", "HybridVAE"])
def test_listening_changes_nothing(name, split, tmp_path):
    heard = [Diary(), JsonLines(tmp_path / "log.jsonl"), *([TensorBoard(tmp_path)] if find_spec("tensorboard") else [])]
    silent, loud = (MODELS[name]().fit(split.train, valid=split.valid, callbacks=who) for who in ([], heard))
    for one, other in zip(silent._tensors().values(), loud._tensors().values(), strict=True):
        assert torch.equal(one, other)
    assert loud.__dict__.keys() == silent.__dict__.keys()


def test_a_log_has_what_a_person_asks_for_later(split, tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    model = MODELS["MultVAE"](training=TrainingOptions(stop_epoch=1)).fit(
        split.train, valid=split.valid, callbacks=[JsonLines(path)]
    )
    begin, epoch, end = read(path)
    assert begin["parameters"] == json.loads(json.dumps(flat_params(model)))
    assert begin["versions"].keys() >= {"recvae", "torch", "python"}
    assert begin["users"] == split.train.n_users
    (record,) = model.history_
    for name in ("epoch", "nll", "kl", "loss", "beta", "valid", "seconds", "best", "users_per_second", "elbo", "part"):
        assert epoch[name] == getattr(record, name)
    assert (end["epochs"], end["error"]) == (1, None)
    assert end["seconds"] >= epoch["seconds"]


def test_a_log_is_read_while_it_is_written_and_grows_by_fits(split, tmp_path):
    path, seen = tmp_path / "log.jsonl", []
    callbacks = [JsonLines(path), lambda epoch: seen.append(read(path)[-1]["epoch"])]
    MODELS["MultDAE"]().fit(split.train, callbacks=callbacks)
    assert seen == [1, 2]
    path.write_text(path.read_text() + '{"event": "ep')  # a run that was killed while it wrote
    MODELS["MultDAE"]().fit(split.train, callbacks=[JsonLines(path)])
    lines = path.read_text().splitlines()
    assert lines[4] == '{"event": "ep'
    whole = [json.loads(line)["event"] for line in lines[:4] + lines[5:]]
    assert whole == ["begin", "epoch", "epoch", "end"] * 2


def test_what_is_no_number_is_null(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    start = {"model": "A", "verb": "fit", "values": "binary", "users": np.int64(1), "items": 1, "events": 1}
    from recvae.training.callbacks import FitInfo

    log.on_fit_start(
        FitInfo(**start, parameters={"x": (1, math.inf), "y": np.float32(0.5)}, valid_users=None, metric=None)
    )
    log.on_epoch_end(Epoch(1, math.nan, 0.0, math.inf, 0.1, None, 1.0))
    text = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in text
    begin, epoch = read(tmp_path / "log.jsonl")
    assert begin["parameters"] == {"x": [1, None], "y": 0.5}
    assert (epoch["nll"], epoch["loss"], epoch["elbo"], epoch["valid"], epoch["kl"]) == (None, None, None, None, 0.0)


def test_an_error_is_told_and_comes_out(split, tmp_path):
    diary, path = Diary(), tmp_path / "log.jsonl"
    model = MODELS["MultVAE"]()
    model._beta = lambda progress, shape: math.nan
    with pytest.raises(TrainingError):
        model.fit(split.train, callbacks=[diary, JsonLines(path)])
    assert isinstance(diary.of("end")[0], TrainingError)
    assert read(path)[-1]["error"].startswith("TrainingError: Expected a finite loss")

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MODELS["MultDAE"]().fit(split.train, callbacks=[JsonLines(path), stop])
    assert (read(path)[-1]["error"], read(path)[-1]["epochs"]) == ("KeyboardInterrupt", 1)


def test_both_fits_of_a_split_of_known_users_are_told(tmp_path):
    split = per_user_split(make_sample(n_users=200, n_items=60).interactions)
    calls, path = [], tmp_path / "log.jsonl"
    model = fit_split(
        MODELS["HybridVAE"](), split, callback=lambda *call: calls.append(call), callbacks=[JsonLines(path)]
    )
    begins = [line for line in read(path) if line["event"] == "begin"]
    assert [line["metric"] for line in begins] == ["ndcg@100", None]
    assert begins[1]["parameters"]["stop_after"] == model.training.stop_epoch
    epochs = [line for line in read(path) if line["event"] == "epoch"]
    second = [("second network", 1), ("second network", 2)]  # these data are thin
    stop = model.training.stop_epoch
    told = [(line["part"], line["epoch"]) for line in epochs]
    assert told == [("network", 1), ("network", 2), *second, *(("network", i + 1) for i in range(stop)), *second]
    assert [iteration for iteration, _, _ in calls] == [i - 1 for part, i in told if part == "network"]


def test_the_run_that_finds_a_cap_is_a_part_of_its_own(split):
    told, calls = [], []
    model = MODELS["MultVAE"](kl_cap=None)
    model.fit(split.train, valid=split.valid, callback=lambda *call: calls.append(call), callbacks=[told.append])
    assert [(epoch.part, epoch.epoch) for epoch in told] == [
        ("kl_cap", 1),
        ("kl_cap", 2),
        ("network", 1),
        ("network", 2),
    ]
    assert [loss for _, _, loss in calls] == [epoch.loss for epoch in told[2:]]


def test_models_without_epochs_tell_when_they_begin_and_end(split, tmp_path):
    EASE().fit(split.train, callbacks=[JsonLines(tmp_path / "log.jsonl")])
    begin, end = read(tmp_path / "log.jsonl")
    assert (begin["model"], begin["metric"], end["epochs"]) == ("EASE", None, 0)


def test_learning_on_is_told_too(split, tmp_path):
    model, path = MODELS["RecVAE"]().fit(split.train), tmp_path / "log.jsonl"
    model.partial_fit(split.train, epochs=3, callbacks=[JsonLines(path)])
    lines = read(path)
    assert (lines[0]["verb"], [line["epoch"] for line in lines[1:-1]]) == ("partial_fit", [1, 2, 3])


def test_an_epoch_is_a_line_for_a_log():
    line = str(Epoch(3, 100.0, 20.0, 104.0, 0.2, 0.4, 1.25, 0.41))
    assert line == "epoch 3: loss 104.00, reconstruction 100.00, KL 20.00, beta 0.2, valid 0.4000 (best 0.4100), 1.2 s"


@pytest.mark.parametrize("wrong", [JsonLines("log.jsonl"), "log.jsonl", None, [3], [JsonLines]])
def test_what_is_no_callback_is_refused_before_the_training(wrong, split):
    with pytest.raises(InvalidTypeError, match="Expected callbacks"):
        EASE().fit(split.train, callbacks=wrong)
    assert as_callbacks([]) == []


def test_other_files_are_not_appended_to(split, tmp_path):
    csv = tmp_path / "events.csv"
    csv.write_text("user,item\n1,2\n")
    for path in (csv, tmp_path):
        with pytest.raises(OutputError, match=r"Expected a (new )?file"):
            EASE().fit(split.train, callbacks=[JsonLines(path)])
    assert csv.read_text() == "user,item\n1,2\n"


def test_tensorboard_gets_a_folder_of_curves_for_each_fit(split, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        model = MODELS["MultVAE"]().fit(split.train, valid=split.valid, callbacks=[TensorBoard(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MultVAE-1", "MultVAE-2"]
    curves = EventAccumulator(str(tmp_path / "MultVAE-2")).Reload()
    found = [(event.step, event.value) for event in curves.Scalars("network/reconstruction")]
    assert found == [(epoch.epoch, pytest.approx(epoch.nll)) for epoch in model.history_]
    assert curves.Scalars("valid/ndcg_at_100")[1].value == pytest.approx(model.history_[1].valid)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Expected a folder that can be written"):
        EASE().fit(split.train, callbacks=[TensorBoard(tmp_path / "file")])


def test_without_tensorboard_it_is_said_how_to_get_it(split, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"recvae\[tensorboard\]\""):
        EASE().fit(split.train, callbacks=[TensorBoard(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_the_command_line_keeps_a_log(tmp_path, capsys):
    out, log = tmp_path / "model", tmp_path / "log.jsonl"
    command = ["train", "--dataset", "sample", "--model", "EASE", "--out", str(out)]
    boards = ["--tensorboard", str(tmp_path / "runs")] if find_spec("tensorboard") else []
    assert main([*command, "--log", str(log), *boards]) == 0
    assert [line["event"] for line in read(log)] == ["begin", "end"]
    assert not boards or list((tmp_path / "runs" / "EASE-1").iterdir())
    capsys.readouterr()
    assert main([*command, "--log", str(out)]) == 2
    assert "Expected --log to be another file than those that are read, and than --out" in capsys.readouterr().err
