import json
import sqlite3
import tomllib

import pytest

import recvae
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.models.base.params import get_params

pytest.importorskip("optuna")
pytest.importorskip("implicit")


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "events.csv"
    cells = make_sample(200, 60).interactions.matrix.tocoo()
    rows = zip(cells.row, cells.col, strict=True)
    path.write_text("user,item\n" + "".join(f"user-{user},{item:03}\n" for user, item in rows))
    return ["--input", str(path), "--heldout-users", "30"]


def test_a_search_prints_its_best_and_writes_what_train_and_benchmark_take(events, tmp_path, capsys):
    out, study = tmp_path / "best.toml", tmp_path / "tune.db"
    command = ["tune", *events, "--model", "itemknn", "--metric", "recall@10", "--param", "values=binary"]
    command += ["--study", str(study), "--out", str(out)]
    assert main([*command, "--trials", "5"]) == 0
    captured = capsys.readouterr()
    assert "trial 0, " in captured.err
    assert "weighting=cosine, K=100: recall@10 0." in captured.err
    assert "ItemKNN: the best of 5 trials (5 complete)" in captured.out
    assert "importance" not in captured.out  # of five trials
    assert main([*command, "--trials", "12"]) == 0
    assert "importance" in capsys.readouterr().out

    assert main([*command, "--trials", "12", "--json"]) == 0
    captured = capsys.readouterr()
    assert "trial " not in captured.err  # they were there
    found = json.loads(captured.out)
    assert found["value"] == max(trial["value"] for trial in found["trials"])
    assert set(found["importance"]) == {"weighting", "K"}
    assert set(found["parameters"]) == {"weighting", "K", "values"}
    best = tomllib.loads(out.read_text())
    assert best["model"] == "ItemKNN"
    assert sorted(best["param"]) == sorted(f"{name}={value}" for name, value in found["parameters"].items())

    model = tmp_path / "model"
    assert main(["train", "--config", str(out), *events, "--out", str(model)]) == 0
    assert get_params(recvae.load(model)) == found["parameters"]
    capsys.readouterr()
    assert main(["benchmark", "--config", str(out), "--examples", "0", "--json"]) == 0
    row, _ = json.loads(capsys.readouterr().out)["models"]
    assert (row["model"], row["parameters"]) == ("ItemKNN", found["parameters"])


def test_settings_of_any_kind_come_back_from_the_file(events, tmp_path):
    """Tuples, an empty one among them, and None."""
    out, model = tmp_path / "best.toml", tmp_path / "model"
    fixed = [word for text in ("epochs=1", "hidden_dims=", "latent_dim=4") for word in ("--param", text)]
    assert main(["tune", *events, "--model", "MultDAE", *fixed, "--trials", "1", "--seed", "3", "--out", str(out)]) == 0
    assert main(["train", "--config", str(out), *events, "--out", str(model)]) == 0
    trained = recvae.load(model)
    assert (trained.hidden_dims, trained.latent_dim, trained.batch_size, trained.epochs) == ((), 4, None, 1)


def test_without_a_split_it_is_the_data_set_s_own(capsys):
    assert main(["tune", "--dataset", "sample", "--model", "ItemKNN", "--trials", "1", "--json"]) == 0
    tried = json.loads(capsys.readouterr().out)
    split = recvae.load_split("sample")
    model = recvae.models.baselines.ItemKNN().fit(split.train)
    assert tried["value"] == recvae.evaluate(model, split.valid)["ndcg@100"].mean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "MultVEA"], "no model called 'MultVEA'; did you mean MultVAE"),
        (["--model", "Popularity"], "Expected a hyper-parameter to search for, got Popularity"),
        (["--param", "epoch=3"], "no hyper-parameter of MultVAE called 'epoch'; did you mean epochs"),
        (["--trials", "0"], "Expected trials to be an integer of at least 1, got 0"),
        (["--metric", "ndgc@10"], "ndgc"),
        (["--study", "/proc/nowhere/tune.db"], "Expected a file that can be written"),
        (["--out", "EVENTS"], "Expected --out to be another file than those that are read"),
    ],
)
def test_bad_requests_are_one_sentence(arguments, message, events, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *events, *(events[1] if word == "EVENTS" else word for word in arguments)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_users_to_choose_by(events, capsys):
    assert main(["tune", *events[:2]]) == 2
    assert "Expected --split or --heldout-users with --input" in capsys.readouterr().err


QUICK = ["--model", "ItemKNN", "--trials", "1"]


@pytest.mark.parametrize("name", ["q?x.db", "50%41.db", "a#b c.db", "x{y}.db", "%s", "file:x?mode=memory", ":memory:"])
def test_the_name_of_a_study_is_what_it_is_called(name, events, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for trials in ("1", "2"):
        assert main(["tune", *events, *QUICK[:-1], trials, "--study", name]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(tmp_path / name) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (2,)


def test_home_is_known_in_the_name_of_a_study(events, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert main(["tune", *events, *QUICK, "--study", "~/new/tune.db"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["me"]
    assert (tmp_path / "me" / "new" / "tune.db").stat().st_size


@pytest.mark.parametrize("kind", ["tables", "no tables", "journal", "text", "one of the tables"])
def test_a_file_of_another_is_not_made_a_study(kind, events, tmp_path, capsys):
    path = tmp_path / "my.db"
    if kind == "text":
        path.write_text("work of years")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode = " + ("wal" if kind == "journal" else "delete"))
            connection.execute("CREATE TABLE " + ("studies (a)" if kind == "one of the tables" else "users (a)"))
            if kind == "no tables":
                connection.execute("DROP TABLE users")
        connection.close()
    before = path.read_bytes()
    assert main(["tune", *events, *QUICK, "--study", str(path)]) == 2
    assert "to be a new file or a study in SQLite, got another" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["my.db"]


def test_an_empty_file_may_become_a_study(events, tmp_path):
    (tmp_path / "new.db").touch()
    assert main(["tune", *events, *QUICK, "--study", str(tmp_path / "new.db")]) == 0
