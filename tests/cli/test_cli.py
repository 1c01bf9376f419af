import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import recvae
from recvae import __version__
from recvae.cli.main import main
from recvae.data.shards import write_shards
from recvae.datasets.sample import make_sample


def test_benchmark_prints_the_table_and_writes_the_results(tmp_path, capsys):
    out = tmp_path / "new" / "results.json"
    assert main(["benchmark", "--models", "itemknn,Popularity", "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("ItemKNN", "Popularity", "oracle", "ndcg@100", "of 12 settings", "top 10", "history"):
        assert word in printed
    results = json.loads(out.read_text())
    assert [row["model"] for row in results["models"]] == ["ItemKNN", "Popularity", "oracle"]
    knn, popularity, oracle = ({n: m["mean"] for n, m in row["metrics"].items()} for row in results["models"])
    assert oracle["ndcg@100"] > knn["ndcg@100"] > popularity["ndcg@100"]
    assert results["best_baseline"] == "ItemKNN"
    assert results["models"][1]["paired_tests"]["ItemKNN"]["p_value"] < 0.001
    assert results["models"][0]["settings_tried"] == 12
    assert results["models"][0]["choice_seconds"] > 0
    assert results["models"][0]["peak_memory_mib"] > 10
    assert results["settings"]["test_users"] == 400
    assert results["versions"]["recvae"] == __version__
    example = results["examples"][0]
    assert len(example["recommended"]["ItemKNN"]) == 10
    assert not set(example["recommended"]["ItemKNN"]) & set(example["history"])
    assert [path.name for path in out.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "ml-2m"], "no data set called 'ml-2m'; did you mean"),
        (["--models", "MultVEA"], "no model called 'MultVEA'; did you mean MultVAE"),
        (["--seeds", "0"], "Expected --seeds to be an integer of at least 1, got 0"),
        (["--out", "/proc/nowhere/results.json"], "Expected a file that can be written"),
        (["--split-seed", "-1"], "Expected seed to be an integer from 0 to 4294967295, got -1"),
        (["--out", "/dev/null"], "it is there and no file"),
        (["--out", "/"], "Expected a file that can be written"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_status_2(arguments, message, capsys):
    assert main(["benchmark", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as done:
        main(["benchmark", "--help"])
    assert done.value.code == 0
    assert "Example: recvae benchmark --dataset ml-1m" in capsys.readouterr().out


def test_as_a_module_and_quiet_where_there_is_no_terminal():
    command = [sys.executable, "-m", "recvae", "benchmark", "--models", "Popularity"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Popularity" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stderr


def test_importing_is_silent_and_leaves_global_state_alone():
    code = (
        "import signal, sys; kept = [signal.getsignal(n) for n in (2, 15)]; import recvae; assert 'torch' not in "
        "sys.modules; import torch, numpy; a = torch.random.get_rng_state(); b = numpy.random.get_state()[1].copy(); "
        "recvae.EASE; recvae.baselines.ALS; assert kept == [signal.getsignal(n) for n in (2, 15)]; "
        "assert set(recvae.__all__) <= set(dir(recvae)); "
        "assert torch.equal(a, torch.random.get_rng_state()); assert (b == numpy.random.get_state()[1]).all()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == done.stderr == ""


# train, evaluate, recommend ------------------------------------------------------------------------------------------

QUICK = ["--param", "epochs=3", "--param", "latent_dim=8", "--param", "hidden_dims=16"]
COLUMNS = ["--user", "who", "--item", "film"]
EVENTS = ["--input", "EVENTS", *COLUMNS]


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A file with two columns of its own names."""
    path = tmp_path_factory.mktemp("events") / "events.csv"
    cells = make_sample(200, 60).interactions.matrix.tocoo()
    rows = zip(cells.row, cells.col, strict=True)
    path.write_text("who,film\n" + "".join(f"user-{user},{item:03}\n" for user, item in rows))
    return str(path)


@pytest.fixture(scope="module")
def trained(events, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model") / "films.recvae")
    held_out = ["--heldout-users", "30", "--seed", "3"]
    assert main(["train", "--input", events, *COLUMNS, *QUICK, *held_out, "--out", path]) == 0
    return path


def test_train_evaluate_and_recommend_on_a_file(events, trained, tmp_path, capsys):
    model = recvae.load(trained)
    assert (model.epochs, model.latent_dim, model.hidden_dims, model.random_state) == (3, 8, (16,), 3)
    capsys.readouterr()
    command = [
        "evaluate",
        trained,
        "--input",
        events,
        *COLUMNS,
        "--heldout-users",
        "30",
        "--metrics",
        "ndcg@10",
        "--json",
    ]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["metrics"]["ndcg@10"]["mean"] < 1
    assert result["users"] <= 30

    out = tmp_path / "top.csv"
    assert main(["recommend", trained, "--input", events, *COLUMNS, "-N", "4", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    data = recvae.Interactions.read(events, user="who", item="film")
    assert len(rows) == 4 * data.n_users
    assert [row["rank"] for row in rows[:4]] == ["1", "2", "3", "4"]
    seen = {(data.user_ids[u], data.item_ids[i]) for u, i in zip(*data.matrix.nonzero(), strict=True)}
    assert not {(row["user"], row["item"]) for row in rows} & seen


def test_recommending_from_the_file_is_recommending_at_once(events, trained, tmp_path):
    data, _ = recvae.Interactions.read(events, user="who", item="film").align(recvae.load(trained).item_ids_)
    ids, scores = recvae.load(trained).recommend(np.arange(data.n_users), data.matrix, N=5)
    out = tmp_path / "top.parquet"
    assert main(["recommend", trained, "--input", events, *COLUMNS, "-N", "5", "--out", str(out)]) == 0
    table = pyarrow.parquet.read_table(out).to_pydict()
    assert table["item"] == data.item_ids[ids.ravel()].tolist()
    assert table["user"] == np.repeat(data.user_ids, 5).tolist()
    assert np.array_equal(np.array(table["score"], dtype=np.float32), scores.ravel())


def test_recommendations_on_standard_output_and_unknown_items(events, trained, tmp_path, capsys):
    few = tmp_path / "few.csv"
    few.write_text("who,film\nnew,001\nnew,005\nnew,never seen\n")
    capsys.readouterr()
    assert main(["recommend", trained, "--input", str(few), *COLUMNS, "-N", "2"]) == 0
    captured = capsys.readouterr()
    assert "1 events are on items that the model does not know" in captured.err
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [(row["user"], row["rank"]) for row in rows] == [("new", "1"), ("new", "2")]
    out = tmp_path / "top.jsonl"
    assert main(["recommend", trained, "--input", str(few), *COLUMNS, "-N", "2", "--out", str(out)]) == 0
    assert [json.loads(line)["item"] for line in out.read_text().splitlines()] == [row["item"] for row in rows]


def test_settings_from_a_file_and_flags_on_top(events, tmp_path):
    config, out = tmp_path / "run.toml", tmp_path / "model"
    config.write_text(f"""
        input = {events!r}
        user = "who"
        item = "film"
        out = {str(out)!r}
        model = "MultDAE"
        param = ["epochs=1", "latent_dim=4"]
        seed = 7
    """)
    assert main(["train", "--config", str(config), "--seed", "8"]) == 0
    model = recvae.load(out)
    assert (type(model).__name__, model.random_state, model.latent_dim) == ("MultDAE", 8, 4)
    for text in ("epoch = 3", "user = true", 'json = "no"', "[table]"):
        config.write_text(text)
        assert main(["evaluate", "--config", str(config)]) == 2


def test_settings_are_read_by_the_type_of_their_flag(events, trained, tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text('metrics = ["ndcg@10", "recall@5"]\njson = true\nheldout-users = "30"')
    assert main(["evaluate", trained, "--input", events, *COLUMNS, "--config", str(config)]) == 0
    assert list(json.loads(capsys.readouterr().out)["metrics"]) == ["ndcg@10", "recall@5"]
    config.write_text("N = 2.5")
    with pytest.raises(SystemExit) as stopped:
        main(["recommend", trained, "--input", events, *COLUMNS, "--config", str(config)])
    assert stopped.value.code == 2
    assert "invalid int value: '2.5'" in capsys.readouterr().err


def test_who_is_left_out_is_said_and_why(tmp_path, capsys):
    """Every third user has one event, too few for the strong split."""
    pytest.importorskip("duckdb")
    cells = make_sample(90, 40).interactions.matrix.tocoo()
    few = (cells.row % 3 == 0) & (np.diff(cells.row, prepend=-1) == 0)  # all but the first of a row
    file, out = tmp_path / "events.parquet", str(tmp_path / "model")
    pyarrow.parquet.write_table(pyarrow.table({"user": cells.row[~few], "item": cells.col[~few]}), file)
    split = recvae.strong_split(recvae.Interactions.read(file), 15)
    assert split.valid.dropped
    assert split.test.dropped
    why = "users were left out: they have fewer than 5 events on items of the training users\n"
    data = ["--input", str(file), "--heldout-users", "15"]
    assert main(["train", *data, "--model", "EASE", "--out", out]) == 0
    said = capsys.readouterr().err
    assert f"{split.valid.dropped} of 15 validation {why}" in said
    assert f"{split.test.dropped} of 15 test {why}" in said
    assert main(["evaluate", out, *data, "--metrics", "ndcg@10"]) == 0
    assert f"{split.test.dropped} of 15 test {why}" in capsys.readouterr().err
    assert main(["shard", "--input", str(file), "--heldout-users", "15", "--out", str(tmp_path / "shards")]) == 0
    shards = ["--shards", str(tmp_path / "shards")]
    capsys.readouterr()
    assert main(["train", *shards, "--model", "MultDAE", "--param", "epochs=1", "--out", out]) == 0
    assert f"{split.valid.dropped} of 15 validation {why}" in capsys.readouterr().err
    others = ["--input", str(file), "--split", "per-user", "--test-share", "0.3", "--valid-share", "0.4"]
    assert main(["train", *others, "--model", "EASE", "--out", out]) == 0
    assert "users were left out: they have nothing in training, or nothing on its items" in capsys.readouterr().err
    few = tmp_path / "few.parquet"
    user = np.arange(120) // 3
    pyarrow.parquet.write_table(pyarrow.table({"user": user, "item": user % 7 + np.arange(120) % 3}), few)
    for command in (["train", "--model", "EASE", "--out", out], ["shard", "--out", str(tmp_path / "no shards")]):
        assert main([*command, "--input", str(few), "--heldout-users", "5"]) == 2
        said = capsys.readouterr().err
        assert "Expected validation users with at least 5 events on items of the training users" in said
        assert said.count("\n") == 1
    patient = ["--model", "MultVAE", "--param", "patience=2", "--out", out]
    assert main(["train", "--input", str(file), *patient]) == 2
    assert "Expected validation users for patience=2, got none" in capsys.readouterr().err


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """Events with days, and a file of later ones."""
    folder = tmp_path_factory.mktemp("dated")
    cells = make_sample(200, 60).interactions.matrix.tocoo()
    days = np.random.default_rng(0).integers(0, 100, cells.nnz)
    base = np.datetime64("2020-01-01")
    rows = [f"{u},{i},{base + d}\n" for u, i, d in zip(cells.row, cells.col, days.tolist(), strict=True)]
    for name, chosen in (("all", days >= 0), ("train", days < 80), ("test", days >= 80)):
        text = "".join(row for row, take in zip(rows, chosen, strict=True) if take)
        (folder / f"{name}.csv").write_text("user,item,day\n" + text)
    return folder


@pytest.mark.parametrize(
    "split",
    [
        ["per-user", "--test-share", "0.3"],
        ["leave-last", "--last", "2"],
        ["temporal", "--test-start", "2020-03-21"],
        ["given", "--test-input", "TEST"],
    ],
)
def test_each_split_serves_training_and_evaluation(split, dated, tmp_path, capsys):
    data = "train" if split[0] == "given" else "all"
    source = ["--input", str(dated / f"{data}.csv"), "--time", "day", "--split", *split]
    source = [word.replace("TEST", str(dated / "test.csv")) for word in source]
    out = str(tmp_path / "model")
    assert main(["train", *source, *QUICK, "--out", out, "--json"]) == 0
    printed = capsys.readouterr()
    done = json.loads(printed.out)
    assert (done["model"], done["file"]) == ("MultVAE", out)
    assert 1 <= done["parameters"]["stop_after"] <= 3
    assert "times from 2020-01-01 to" in printed.err
    assert main(["evaluate", out, *source, "--metrics", "ndcg@10", "--json"]) == 0
    assert 0.02 < json.loads(capsys.readouterr().out)["metrics"]["ndcg@10"]["mean"] < 1


def test_the_two_ways_to_say_what_is_later_agree(dated, tmp_path, capsys):
    cut = ["--input", str(dated / "all.csv"), "--time", "day", "--split", "temporal", "--test-start", "2020-03-21"]
    given = ["--input", str(dated / "train.csv"), "--split", "given", "--test-input", str(dated / "test.csv")]
    found = []
    for source in (cut, given):
        out = str(tmp_path / "model")
        assert main(["train", *source, "--model", "popularity", "--out", out]) == 0
        assert main(["evaluate", out, *source, "--metrics", "ndcg@10,recall@5", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


@pytest.mark.parametrize("other", [[], ["--split-seed", "5"], ["--test-share", "0.1"]])
def test_a_model_that_may_know_the_test_is_not_evaluated(other, dated, tmp_path, capsys):
    """The items are the same, and so nothing but the events tells."""
    source, out = ["--input", str(dated / "all.csv")], str(tmp_path / "model")
    split = ["--split", "per-user", *other] if other else []
    assert main(["train", *source, *split, "--model", "popularity", "--out", out]) == 0
    assert main(["evaluate", out, *source, "--split", "per-user"]) == 2
    assert "perhaps those of the test" in capsys.readouterr().err
    if other:
        assert main(["evaluate", out, *source, *split]) == 0


def test_nothing_that_is_read_is_written_over(events, tmp_path, capsys):
    (tmp_path / "events.csv").write_text("user,item\n1,2\n")
    card = '[events]\ncolumns = ["user", "item"]\nheader = true\n[protocol]\nmin_user = 1\nheldout_users = 1'
    (tmp_path / "films.toml").write_text(f'name = "films"\ntitle = "Films"\npath = "events.csv"\n{card}')
    (tmp_path / "run.toml").write_text('dataset = "sample"')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    own = ["--dataset", str(tmp_path / "films.toml")]
    for arguments in (
        ["train", *own, "--out", "films.toml"],
        ["train", *own, "--out", "events.csv"],
        ["benchmark", *own, "--out", "events.csv"],
        ["benchmark", "--config", str(tmp_path / "run.toml"), "--out", "run.toml"],
    ):
        assert main([*arguments[:-1], str(tmp_path / arguments[-1])]) == 2
        assert "another file than those that are read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_models_of_known_users_are_evaluated_and_do_not_recommend_to_others(dated, tmp_path, capsys):
    source = ["--input", str(dated / "all.csv")]
    out = str(tmp_path / "model")
    command = ["train", *source, "--split", "per-user", "--model", "bpr", "--param", "factors=4", "--out", out]
    assert main(command) == 0
    assert main(["evaluate", out, *source, "--split", "per-user", "--metrics", "ndcg@10"]) == 0
    assert main(["recommend", out, *source]) == 2
    assert "BPR has factors for the users it was trained on only" in capsys.readouterr().err
    strangers = ["--heldout-users", "30", "--out", str(tmp_path / "other")]
    assert main(["train", *source, "--model", "bpr", *strangers]) == 2
    assert not (tmp_path / "other").exists()
    assert "BPR has factors for the users it was trained on only" in capsys.readouterr().err


def test_results_as_json(events, trained, capsys):
    assert main(["benchmark", "--models", "popularity", "--examples", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["split"] == {"kind": "strong", "heldout_users": 400, "seed": 98765}
    assert main(["recommend", trained, "--input", events, *COLUMNS, "-N", "1", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[0])) == {"user", "rank", "item", "score"}


def test_ids_that_another_file_spells_as_numbers_are_the_same(tmp_path, capsys):
    (tmp_path / "text.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in "abc" for i in ["x", 1, 2, 3, 4]))
    (tmp_path / "numbers.csv").write_text("user,item\nz,1\nz,2\n")
    command = [
        "train",
        "--input",
        str(tmp_path / "text.csv"),
        "--model",
        "popularity",
        "--out",
        str(tmp_path / "model"),
    ]
    assert main(command) == 0
    assert main(["recommend", str(tmp_path / "model"), "--input", str(tmp_path / "numbers.csv"), "-N", "5"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(row["item"] for row in rows) == ["3", "4", "x"]


def test_data_sets_are_listed(tmp_path, capsys):
    (tmp_path / "ml-1m").mkdir()
    assert main(["datasets", "--data-home", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "ml-20m" in printed
    assert "20,000,263" in printed
    assert main(["datasets", "--data-home", str(tmp_path), "--json"]) == 0
    here = {card["name"]: card["here"] for card in json.loads(capsys.readouterr().out)}
    assert here["ml-1m"]
    assert here["sample"]
    assert not here["ml-20m"]


def test_a_data_set_serves_as_well(tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["train", "--dataset", "sample", "--model", "popularity", "--out", str(out)]) == 0
    assert recvae.load(out).titles_[0].startswith("The ")
    assert main(["recommend", str(out), "--dataset", "sample", "-N", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == '"user","rank","item","score","title"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--input", "EVENTS", "--out", "OUT"], "Expected one column 'user', but it is missing"),
        (["train", "--input", "EVENTS"], "Expected out for recvae train, by argument or in --config"),
        (["train", "--out", "OUT"], "either --input FILE or --dataset NAME"),
        (
            ["train", "--input", "EVENTS", "--dataset", "sample", "--out", "OUT"],
            "either --input FILE or --dataset NAME",
        ),
        (["train", "--dataset", "sample", "--param", "latent_dim", "--out", "OUT"], "Expected --param NAME=VALUE"),
        (["train", "--dataset", "sample", "--param", "latent=3", "--out", "OUT"], "did you mean latent_dim"),
        (["train", "--dataset", "sample", "--param", "latent_dim=x", "--out", "OUT"], "an integer as latent_dim"),
        (["train", "--dataset", "sample", "--out", "/proc/nowhere/model"], "Expected a file that can be written"),
        (["train", "--config", "nowhere.toml"], "The configuration nowhere.toml cannot be read"),
        (["recommend", "nowhere.recvae", "--dataset", "sample"], "Expected a model file at nowhere.recvae"),
        (["recommend", "EVENTS", "--dataset", "sample"], "Expected a model file of recvae"),
        (["recommend", "MODEL", "--dataset", "sample"], "Expected events on some of the"),
        (["recommend", "MODEL", "--input", "EVENTS", "--out", "EVENTS"], "another file than those that are read"),
        (["recommend", "MODEL", "--input", "EVENTS", "--out", "MODEL"], "another file than those that are read"),
        (["recommend", "MODEL", "--dataset", "sample", "--item", "film"], "with --input only"),
        (
            ["train", "--input", "EVENTS", "--user", "who", "--item", "who", "--out", "OUT"],
            "Expected different columns",
        ),
        (["recommend", "MODEL", "--dataset", "sample", "-N", "0"], "Expected -N to be an integer of at least 1"),
        (["recommend", "MODEL", "--dataset", "sample", "--out", "top.xlsx"], "ends in .parquet, .csv, .tsv, .jsonl"),
        (
            ["evaluate", "MODEL", "--dataset", "sample", "--heldout-users", "400"],
            "to have been trained on the training part of this",
        ),
        (["evaluate", "MODEL", "--dataset", "sample"], "Expected --split or --heldout-users, as in training"),
        (["evaluate", "MODEL", "--dataset", "sample", "--last", "2"], "Expected --split KIND for last, got none"),
        (["train", "--dataset", "sample", "--split", "temporal", "--out", "OUT"], "Expected events with times"),
        (["train", "--dataset", "sample", "--split", "tempral", "--out", "OUT"], "did you mean temporal"),
        (["train", "--dataset", "sample", "--split", "strong", "--last", "1", "--out", "OUT"], "split, got last"),
        (["train", "--dataset", "sample", "--split", "given", "--out", "OUT"], "whose card gives no test"),
        (
            ["train", *EVENTS, "--split", "given", "--out", "OUT"],
            "test interactions (--test-input) for the given split, got none",
        ),
        (["train", *EVENTS, "--test-input", "EVENTS", "--out", "OUT"], "Expected --split KIND for test_input"),
        (["train", *EVENTS, "--time", "when", "--out", "OUT"], "Expected one column 'when', but it is missing"),
        (["train", *EVENTS, "--split", "", "--out", "OUT"], "no split called ''"),
        (["train", *EVENTS, "--split", "per-user", "--test-share", "3", "--out", "OUT"], "between 0 and 1, got 3.0"),
        (
            ["train", "--dataset", "sample", "--split", "per-user", "--test-input", "EVENTS", "--out", "OUT"],
            "Expected --test-input with --input only",
        ),
        (["benchmark", "--param", "epoch=3"], "did you mean epochs"),
        (["benchmark", "--param", "random_state=3"], "Expected the seeds by first_seed and seeds"),
        (["benchmark", "--seed", "-1"], "Expected --seed to be an integer of at least 0, got -1"),
    ],
)
def test_bad_requests_are_one_sentence_and_leave_nothing(
    arguments, message, events, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = {"EVENTS": events, "OUT": str(tmp_path / "out"), "MODEL": trained}
    capsys.readouterr()
    assert main([words.get(word, word) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# inputs stay what they are -------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to be in, with events of every kind, a model, a card, shards and a home of data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recvae.tuning.study.check_study", lambda path: path)
    data = make_sample(60, 20).interactions
    for folder in ("in", "home/films", "home/ml-1m"):
        Path(folder).mkdir(parents=True)
        data.write(f"{folder}/a.parquet")
        data.write(f"{folder}/b.parquet")
    data.write("e.csv")
    recvae.EASE(l2=10.0).fit(data).save("model")
    write_shards("in", "shards", show_progress=False)
    Path("run.toml").write_text("seed = 3")
    card = '[protocol]\nheldout_users = 5\n[events]\ncolumns = ["user", "item"]\n'
    Path("own.toml").write_text(f'name = "own"\ntitle = "x"\npath = "in/a.parquet"\n{card}')
    Path("films.toml").write_text(f'name = "films"\ntitle = "x"\n{card}file = "*.parquet"\n')
    Path("link").symlink_to("in")
    Path("hard").hardlink_to("in/a.parquet")
    return tmp_path


TRAIN = "train --model EASE"
FILMS = f"{TRAIN} --dataset films.toml --data-home home"


@pytest.mark.parametrize(
    "command",
    [
        f"{TRAIN} --input in --out in/a.parquet",
        f"{TRAIN} --input in --out in/new",
        f"{TRAIN} --input in --out link/new",
        f"{TRAIN} --input link --out in/new/deep",
        f"{TRAIN} --input in --out hard",
        f"{TRAIN} --input in --out x/../in/new",
        f"{TRAIN} --input in/a.parquet --out hard",
        f"{TRAIN} --input e.csv --out m --log in/../e.csv",
        f"{TRAIN} --input in --out m --log in/log.jsonl",
        f"{TRAIN} --input in --out m --tensorboard in",
        f"{TRAIN} --input in --out m --checkpoint in/run",
        f"{TRAIN} --input in/a.parquet --out m --checkpoint in",
        f"{TRAIN} --input e.csv --out m --log m",
        f"{TRAIN} --input e.csv --out m --log m/log",
        f"{TRAIN} --shards shards --out shards/items.arrow",
        f"{TRAIN} --shards shards --out m --log shards/log.jsonl",
        f"{TRAIN} --dataset own.toml --out own.toml",
        f"{TRAIN} --dataset own.toml --out in/a.parquet",
        f"{TRAIN} --dataset own.toml --config run.toml --out run.toml",
        f"{FILMS} --out home/films/a.parquet",
        f"{FILMS} --out home/films/new",
        f"{FILMS} --out home/ml-1m/a.parquet",
        f"{FILMS} --out m --checkpoint home",
        "tune --model EASE --input in --heldout-users 5 --study in/tune.db",
        "tune --model EASE --input e.csv --heldout-users 5 --study best --out best",
        "benchmark --dataset films.toml --data-home home --report home/films",
        "benchmark --dataset films.toml --data-home home --out home/films/b.parquet",
        "recommend model --input in --out in/top.parquet",
        "recommend model --input in --out in/top/",
        "recommend model --input in/a.parquet --out in",
        "recommend model --input e.csv --out model",
        "shard --input in --out in/shards",
        "shard --input in/a.parquet --out in",
    ],
)
def test_no_output_is_in_what_is_read_nor_holds_it(command, place, capsys):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(command.split()) == 2
    assert "to be another file than those that are read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_outputs_next_to_what_is_read_are_written(place):
    for command in (
        f"{TRAIN} --input in --out in2/model --log in2/log.jsonl",
        f"{TRAIN} --input e.csv --out new/model --tensorboard .",
        f"{FILMS} --out home/model",
        "recommend model --input in/a.parquet --out in/top.csv",
    ):
        assert main(command.split()) == 0


# what is said, and where ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--input", "a\nb\x1b[31m.csv", "--out", "m"],
        ["train", "--input", "\udce9.csv", "--out", "m"],
        ["train", "--input", "loop/x.csv", "--out", "m"],
        ["train", "--input", "x" * 300 + ".csv", "--out", "m"],
        ["train", "--dataset", "sample", "--model", "EASE", "--out", "loop/m"],
        ["train", "--dataset", "sample", "--model", "EASE", "--out", "x" * 300],
        ["train", "--dataset", "sample", "--model", "EASE", "--out", "m", "--log", "loop/l"],
        ["train", "--dataset", "[/x]\x1b.toml", "--out", "m"],
        ["train", "--config", "deep.toml"],
        ["train", "--config", "large.toml"],
        ["train", "--config", "latin.toml"],
        ["train", "--config", "keys.toml"],
        ["train", "--config", "inner.toml"],
        ["train", "--config", "hexadecimal.toml"],
        ["recommend", "loop/model", "--dataset", "sample"],
        ["recommend", "x" * 300, "--dataset", "sample", "--out", "top.csv"],
        ["report", "loop/r.json", "--out", "page"],
        ["benchmark", "--report", "loop/page"],
    ],
)
def test_odd_paths_and_files_are_one_sentence_without_controls(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("deep.toml").write_text("a = " + "[" * 10_000)
    Path("large.toml").write_text("seed = 1" + "0" * 5000)
    Path("keys.toml").write_text("a." * 5_000 + "b = 1")
    Path("inner.toml").write_text("param = [{" + "a." * 5_000 + "b = 1}]")
    Path("hexadecimal.toml").write_text("seed = 0x1" + "0" * 5000)
    Path("latin.toml").write_bytes(b"a = '\xe9'")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err[:-1].isprintable()
    assert captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [["--out", ""], ["--out", "~no such user/m"], ["--sed", "\x1b[31m"], ["-N", "1"], ["--seed", "x" * 5000]],
)
def test_flags_that_are_wrong_are_one_sentence_too(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(("recvae train: ", "recvae: "))
    assert said[:-1].isprintable()
    assert len(said) < 1100


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder with events on items of Japanese names, and a model of them."""
    folder = tmp_path_factory.mktemp("foreign")
    rows = [f"{user},東京{(user + step) % 50}\n" for user in range(400) for step in range(3)]
    (folder / "e.csv").write_text("user,item\n" + "".join(rows))
    model = str(folder / "model")
    assert main(["train", "--input", str(folder / "e.csv"), "--model", "Popularity", "--out", model]) == 0
    return folder


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk():
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda: io.TextIOWrapper(io.BytesIO(), "latin-1"), "latin-1 has no '東'; set PYTHONIOENCODING=utf-8"),
        (lambda: None, "but it is closed; name a file with --out"),
        (full_disk, "got: No space left on device"),
        (broken_pipe, "got: Broken pipe"),
    ],
)
def test_a_standard_output_that_does_not_take_all_is_a_sentence(stream, message, foreign, monkeypatch, capsys):
    monkeypatch.chdir(foreign)
    made = stream()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", made)
        assert main(["recommend", "model", "--input", "e.csv"]) == 2
        if made is not None:
            made.close()
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("stream", [lambda: None, broken_pipe, full_disk])
def test_a_standard_error_that_is_closed_stops_nothing(stream, foreign, monkeypatch, capsys):
    monkeypatch.chdir(foreign)
    made = stream()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", made)
        assert main(["train", "--input", "e.csv", "--model", "Popularity", "--out", "model2"]) == 0
        assert main(["train", "--input", "nowhere.csv", "--out", "model2"]) == 2
        if made is not None:
            made.close()
    assert capsys.readouterr().out == ""


def test_markup_in_a_path_is_text_and_a_table_is_shown_on_any_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    card = '[protocol]\nheldout_users = 9\n[items]\nfile = "i.csv"\ncolumns = ["item", "title"]\n[events]\n'
    folder = tmp_path / "a [" / "x] [bold]"
    folder.mkdir(parents=True)
    (folder / "c.toml").write_text(f'name = "x"\ntitle = "[/x]"\npath = "e.csv"\n{card}columns = ["user", "item"]\n')
    (folder / "e.csv").write_text("".join(f"{user},{(user + step) % 9}\n" for user in range(60) for step in range(6)))
    (folder / "i.csv").write_text("".join(f"{item},東京 [/x] :smile: \x1b[31m{item}\n" for item in range(9)))
    content = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(content, "latin-1", write_through=True))
        command = ["benchmark", "--models", "Popularity", "--dataset", "a [/x] [bold]/c.toml", "--out", "[/y]"]
        assert main(command) == 0
        shown = content.getvalue().decode("latin-1")
    assert "a [/x] [bold]/c.toml, strong split" in shown
    assert r"\u6771\u4eac [/x] :smile: \x1b[31m" in shown
    assert "\x1b" not in shown + capsys.readouterr().err
    assert (tmp_path / "[" / "y]").exists()


# stopped -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _not_ignored():
    """The child of a process that ignores SIGINT, as everything in the background of a shell does, ignores it too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_not_ignored")
@pytest.mark.parametrize(("when", "number", "status"), [("loading", 2, 130), ("training", 15, 143)])
def test_a_signal_ends_a_command_with_a_sentence_and_nothing_half_written(when, number, status, tmp_path):
    (tmp_path / "old").write_text("a model of before")
    command = [sys.executable, "-m", "recvae", "train", "--dataset", "sample", "--out", "old", "--log", "log"]
    process = subprocess.Popen(
        [*command, "--param", "epochs=5000"], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    started = time.monotonic()
    while when == "training" and not (tmp_path / "log").exists() and time.monotonic() < started + 60:
        time.sleep(0.05)
    time.sleep(0.6 if when == "loading" else 0)
    for _ in range(2):  # `timeout` sends its signal twice
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.splitlines()[-1].startswith("recvae: stopped")
    assert "Traceback" not in err
    assert out == ""
    assert (tmp_path / "old").read_text() == "a model of before"
    assert {path.name for path in tmp_path.iterdir()} <= {"old", "log"}


# a command of another name instead of all libraries; what is said while Python takes modules apart would be seen
EXIT = """
import atexit, sys, types

class Module:
    def __del__(self):
        print("taken apart")

kept = Module()
def command():
    atexit.register(print, "a library is told of the end")
    {}
sys.modules["recvae.cli.main"] = types.SimpleNamespace(main=command)
from recvae.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        ("return 3", 3, "a library is told of the end\n"),
        ("sys.stdout.close(); return 0", 0, ""),
        ("raise SystemExit(2)", 2, "a library is told of the end\ntaken apart\n"),
    ],
)
def test_a_command_that_has_ended_ends_its_process(ends, status, said):
    """Taking torch apart takes a second, in which Python handles no signal."""
    done = subprocess.run([sys.executable, "-c", EXIT.format(ends)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, said)
