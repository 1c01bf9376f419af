"""The final table: each model on each split once, then means over splits and differences by user."""

import json
import stat
import sys

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.accuracy import family
from benchmarks.accuracy.family import Family, case, ials, models_of, run_family, seeds_of
from benchmarks.accuracy.family.pool import Result, by_user, pool, seconds_to
from benchmarks.pages.tables import family_table
from recvae import evaluate, per_user_split
from recvae.benchmark.grids import GRIDS
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, TrainingError, UnknownNameError
from recvae.models.baselines import Popularity

CARD = """
name = "small"
title = "Small"
path = "events.csv"
[events]
columns = ["user", "item"]
header = true
[protocol]
heldout_users = 40
metrics = ["recall@20", "ndcg@10"]
"""


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = make_sample(n_users=300, n_items=60).interactions
    cells = data.matrix.tocoo()
    lines = (f"who-{user},{item}\n" for user, item in zip(cells.row, cells.col, strict=True))
    (folder / "events.csv").write_text("user,item\n" + "".join(lines))
    (folder / "small.toml").write_text(CARD)
    return str(folder / "small.toml")


@pytest.fixture
def here(monkeypatch):
    """Cases run in this process, and are counted."""
    jobs = []
    monkeypatch.setattr(family, "run_case", lambda job: (jobs.append((job["split_seed"], job["model"])), case.run(job)))
    return jobs


def values_of(seed, users, shift=0.0):
    about = {"parameters": {}, "settings_tried": 12, "choice_seconds": 1.0, "fit_seconds": 2.0}
    about |= {"users_ranked_per_second": 10.0, "peak_memory_mib": 100.0}
    values = np.random.default_rng(seed).random(len(users)) + shift
    return Result(np.array(users), {"ndcg@10": values}, about)


@pytest.mark.parametrize("model", [name for name in models_of("all") if name != family.IALS])
def test_the_settings_of_each_model_are_written_as_json(model):
    settings = case.grid(model)
    assert settings
    assert all(type(value) in (str, int, float, bool, list, type(None)) for one in settings for value in one.values())


def test_a_user_of_several_splits_counts_once():
    one, two = values_of(1, ["ann", "bob"]), values_of(2, ["bob", "eve", "joe"])
    metric = by_user([one, two], "ndcg@10")
    assert metric.users.tolist() == ["ann", "bob", "eve", "joe"]
    a, b, c, d, e = (*one.values["ndcg@10"], *two.values["ndcg@10"])
    assert metric.values == pytest.approx([a, (b + c) / 2, d, e])


def test_means_are_over_splits_and_differences_over_users():
    users = [[f"u{i}" for i in range(60)], [f"u{i}" for i in range(30, 60)]]
    results = {
        "MultVAE": [values_of(seed, some, 0.5) for seed, some in enumerate(users)],
        "ALS": [values_of(seed, some) for seed, some in enumerate(users)],
        "Popularity": [values_of(seed + 9, some, -0.2) for seed, some in enumerate(users)],
    }
    pooled = pool(results, ["ndcg@10"])
    rows = {row["model"]: row for row in pooled["models"]}
    assert (pooled["best_baseline"], pooled["users"], pooled["tests_of_users"]) == ("ALS", 60, 90)
    means = [result.values["ndcg@10"].mean() for result in results["ALS"]]
    assert rows["ALS"]["metrics"]["ndcg@10"]["by_split"] == pytest.approx(means)
    assert rows["ALS"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(np.mean(means))
    tests = rows["MultVAE"]["paired_tests"]
    assert list(tests) == ["ALS", "Popularity"]
    assert tests["ALS"]["difference"] == pytest.approx(0.5)
    # no resample can differ as much: 1 of 10,001 by definition, twice that after Holm
    assert [test["p_holm"] for test in tests.values()] == pytest.approx([2 / 10_001] * 2)
    assert list(rows["Popularity"]["paired_tests"]) == ["ALS"]
    assert rows["ALS"]["paired_tests"] == {}


def test_irspack_s_ials_is_a_baseline_like_the_package_s():
    results = {name: [values_of(1, range(60), gain)] for name, gain in (("MultVAE", 0.5), ("ALS", 0.0), ("iALS", 0.1))}
    pooled = pool(results, ["ndcg@10"])
    tests = {row["model"]: list(row["paired_tests"]) for row in pooled["models"]}
    assert pooled["best_baseline"] == "iALS"
    assert tests == {"MultVAE": ["ALS", "iALS"], "ALS": ["iALS"], "iALS": []}


def test_the_same_tests_five_times_are_no_more_evidence():
    """On a split that the data come with, the test users of all split seeds are the same."""
    once = {"MultVAE": [values_of(1, range(50))], "ALS": [values_of(2, range(50))]}
    five = {name: results * 5 for name, results in once.items()}
    tests = [pool(results, ["ndcg@10"])["models"][0]["paired_tests"]["ALS"] for results in (once, five)]
    assert tests[0] == pytest.approx(tests[1])


def test_seconds_until_the_best_baseline_is_reached():
    """All that is outside of epochs counts before the first."""
    epochs = [{"seconds": 2.0, "valid": 0.3}, {"seconds": 3.0, "valid": 0.5}, {"seconds": 3.0, "valid": 0.4}]
    about = {"fit_seconds": 10.0, "valid": 0.5, "history": epochs}
    assert [seconds_to(about, target) for target in (0.2, 0.3, 0.4, 0.5, 0.6, None)] == [4, 4, 7, 7, None, None]
    closed_form = {"fit_seconds": 10.0, "valid": 0.5, "history": None}
    assert [seconds_to(closed_form, target) for target in (0.5, 0.6)] == [10, None]
    assert seconds_to({"fit_seconds": 10.0}, 0.1) is None


def test_the_best_baseline_is_that_of_each_split():
    users = ["ann", "bob"]
    results = {name: [values_of(seed, users) for seed in range(2)] for name in ("RecVAE", "ALS", "EASE")}
    for name, by_split in {"RecVAE": (0.3, 0.9), "ALS": (0.2, 0.4), "EASE": (0.4, 0.1)}.items():
        for result, valid in zip(results[name], by_split, strict=True):
            result.about["valid"] = valid
    rows = {row["model"]: row["seconds_to_best_baseline"] for row in pool(results, ["ndcg@10"])["models"]}
    assert rows == {"RecVAE": [None, 2.0], "ALS": [None, 2.0], "EASE": [2.0, None]}


def test_other_users_are_refused():
    with pytest.raises(InvalidDataError, match="Expected ALS to be tested on the users of MultVAE"):
        pool({"MultVAE": [values_of(1, [1, 2])], "ALS": [values_of(1, [1, 3])]}, ["ndcg@10"])


def test_what_is_finished_is_never_run_again_unless_told_so(card, here, tmp_path, monkeypatch):
    job = Family(card, None, [1, 2], ["Popularity", "ItemKNN"], tmp_path / "work")
    (tmp_path / "work").mkdir()
    first = run_family(Family(card, None, [1], ["Popularity"], tmp_path / "work"))
    assert first["models"][0]["metrics"]["ndcg@10"]["by_split"][0] > 0
    results = run_family(job)
    assert here == [(1, "Popularity"), (1, "ItemKNN"), (2, "Popularity"), (2, "ItemKNN")]
    assert run_family(job)["models"] == results["models"]
    assert len(here) == 4
    run_family(job, again=True)
    assert len(here) == 8
    monkeypatch.setitem(GRIDS, "Popularity", [{"values": "raw"}])
    with pytest.raises(
        InvalidParameterError, match=r"chosen from today's settings, got others in .*; run with --again"
    ):
        run_family(job)


def test_a_thin_split_learns_from_a_share_of_each_users_events(card, here, tmp_path):
    whole, thin = (
        run_family(Family(card, None, [1], ["Popularity"], tmp_path / "work", thin=share)) for share in (None, 0.5)
    )
    assert (whole["dataset"], thin["dataset"]) == ("small", "small-thin-50")
    assert thin["first_split"]["train_users"] == 300  # all of them, and their test has the other events
    assert whole["first_split"]["train_users"] < 300
    assert len(here) == 2  # in files of their own


def test_results_pass_no_data_on(card, here, tmp_path):
    out = tmp_path / "family-small.json"
    command = f"family --dataset {card} --split-seeds 1,2 --models Popularity --work {tmp_path / 'work'} --out {out}"
    assert main(command.split()) == 0
    assert "who-" not in out.read_text()
    with np.load(tmp_path / "work" / "small-test-1-Popularity.npz") as arrays:
        assert str(arrays["users"][0]).startswith("who-")
    result = json.loads(out.read_text())
    assert (result["measured_on"], result["split_seeds"], result["best_baseline"]) == ("test", [1, 2], "Popularity")
    table = family_table(result)
    assert "| Popularity | " in table
    assert "Means over 2 splits (seeds 1, 2)" in table


def test_a_process_of_its_own(card, tmp_path, monkeypatch):
    work = tmp_path / "work"
    results = run_family(Family(card, None, [3], ["Popularity"], work, users="valid"))
    assert results["models"][0]["peak_memory_mib"] > 10
    assert sorted(path.name for path in work.iterdir()) == [
        f"small-valid-3-Popularity.{end}" for end in ("json", "npz")
    ]
    (tmp_path / "gone.toml").write_text(CARD)
    with pytest.raises(TrainingError, match=r"Expected Popularity to run on split seed 9, but: .*DataNotFoundError"):
        run_family(Family(str(tmp_path / "gone.toml"), None, [9], ["Popularity"], work))


def test_development_looks_at_no_test_user(split):
    half = case.development(split)
    chosen, measured, test = (set(part.users) for part in (half.valid, half.test, split.test))
    assert chosen | measured == set(split.valid.users)
    assert not chosen & measured
    assert not (chosen | measured) & test
    assert (half.test.held_out != split.valid.held_out[1::2]).nnz == 0
    assert half.refit is None
    known = per_user_split(make_sample(n_users=300, n_items=80).interactions)
    half = case.development(known)
    assert (half.train.user_ids[half.test.train_rows] == half.test.users).all()
    assert not half.test.held_out.multiply(half.train.matrix[half.test.train_rows]).nnz


FAKE = """#!{python}
import json, sys
import numpy as np
from scipy import sparse
job = json.loads(sys.argv[2])
rows, fold_in = (sparse.load_npz(job[name]) for name in ("rows", "fold_in"))
order = np.argsort(-np.bincount(rows.indices, minlength=rows.shape[1]), kind="stable")
found = {{"fit_seconds": [0.5] * len(job["settings"]), "list_seconds": [0.5] * len(job["settings"])}}
for number, settings in enumerate(job["settings"]):
    lists = [[i for i in order[:: settings["step"]] if i not in row.indices][: job["N"]] for row in fold_in]
    found[str(number)] = np.array([ids + [-1] * (job["N"] - len(ids)) for ids in lists])
np.savez(job["out"], **found)
print("its progress")
"""


def test_lists_of_another_package_are_chosen_and_measured_by_our_evaluator(split, tmp_path):
    """A script instead of irspack's lists the most popular items, forwards or backwards."""
    script = tmp_path / "python"
    script.write_text(FAKE.format(python=sys.executable))
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    metrics = ["recall@5", "ndcg@10"]
    found, about = ials.run_ials(script, split, metrics, "ndcg@10", [{"step": -1}, {"step": 1}, {"step": -1}])
    expected = evaluate(Popularity().fit(split.train), split.test, metrics)
    for name in metrics:
        assert found[name].values.tolist() == expected[name].values.tolist()
    assert (about["parameters"], about["settings_tried"]) == ({"step": 1}, 3)
    assert about["fit_seconds"] == 0.5
    assert about["choice_seconds"] > 0


def test_ials_is_absent_without_an_environment(card, here, tmp_path):
    results = run_family(Family(card, None, [1], ["iALS", "Popularity", "BPR"], tmp_path))
    assert [row["model"] for row in results["models"]] == ["Popularity"]
    assert results["absent"]["iALS"] == "no folder for its environment was given"
    assert "cannot score others" in results["absent"]["BPR"]
    with pytest.raises(InvalidParameterError, match="Expected a model that can be run, got none"):
        run_family(Family(card, None, [1], ["iALS"], tmp_path))


def test_names_and_seeds():
    assert models_of("all") == [*GRIDS, "iALS"]
    assert models_of("multvae, ials,MultVAE") == ["MultVAE", "iALS"]
    with pytest.raises(UnknownNameError, match="did you mean"):
        models_of("MultVEA")
    assert seeds_of("101-105") == [101, 102, 103, 104, 105]
    assert seeds_of("1,2,7-8") == [1, 2, 7, 8]
    for text in ("", "one", "3-1", "1,1", "1-2-3"):
        with pytest.raises(InvalidParameterError, match="Expected split seeds"):
            seeds_of(text)


def test_data_of_persons_stay_out_of_the_repository(card, capsys):
    assert main(f"family --dataset {card} --models Popularity --work {family.ROOT / 'runs'}".split()) == 2
    assert "Expected --work outside of the repository" in capsys.readouterr().err
