import json
import sys

import msgspec
import pytest

from recvae import Recommender, load_card
from recvae.benchmark import inspection
from recvae.benchmark import run as benchmark
from recvae.benchmark.grids import GRIDS, OURS, OWN_MODELS, SAMPLE, model_names, models_to_try
from recvae.benchmark.results import FORMAT, read_results
from recvae.benchmark.run import run_benchmark
from recvae.cli.main import main
from recvae.datasets.card import read_card
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError, UnknownUsersError
from recvae.models import MultVAE
from recvae.models.base.params import get_params
from recvae.utils.memory import PeakMemory


@pytest.fixture
def quick(monkeypatch):
    """Two models that train in no time, and a small map."""
    monkeypatch.setattr(inspection, "MAPPED", 40)
    for name in list(GRIDS):
        monkeypatch.delitem(GRIDS, name)
    monkeypatch.delitem(SAMPLE, "MultVAE")
    monkeypatch.setitem(GRIDS, "MultVAE", [{"epochs": 2, "latent_dim": 8, "hidden_dims": (16,)}])
    monkeypatch.setitem(GRIDS, "Popularity", [{}])


def test_seeds_are_averaged_by_user(quick):
    one, two = (run_benchmark(seeds=seeds)["models"][0] for seeds in (1, 2))
    by_seed = two["by_seed"]["ndcg@100"]
    assert len(by_seed) == 2
    assert by_seed[0] == one["by_seed"]["ndcg@100"][0] != by_seed[1]
    assert two["metrics"]["ndcg@100"]["mean"] == pytest.approx(sum(by_seed) / 2)
    assert len(two["history"]) == 2
    assert two["history"][0]["kl"] > 0


def test_models_without_a_seed_run_once(quick):
    assert len(run_benchmark(seeds=3, models=["Popularity"])["models"][0]["by_seed"]["ndcg@100"]) == 1


def test_the_first_seed_and_hyper_parameters_can_be_chosen(quick):
    results = run_benchmark(models=["MultVAE"], first_seed=7, params={"epochs": "1"})
    assert results["models"][0]["parameters"]["random_state"] == 7
    assert len(results["models"][0]["history"]) == 1
    assert results["settings"]["seeds"] == [7]
    with pytest.raises(UnknownNameError, match="did you mean epochs"):
        run_benchmark(params={"epoch": "1"})


def test_another_split_than_the_card_s(quick):
    results = run_benchmark(split="per-user", split_options={"valid_share": 0.2})
    assert results["settings"]["split"] == {"kind": "per-user", "valid_share": 0.2, "seed": 98765}
    assert results["settings"]["test_users"] > 2900
    names = [row["model"] for row in results["models"]]
    assert names == ["MultVAE", "Popularity"]
    assert results["models"][0]["parameters"]["stop_after"] in (1, 2)


def test_what_is_done_is_kept_when_a_later_model_fails(quick, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise InvalidDataError("Expected something else.")

    monkeypatch.setattr(benchmark, "KEEP_SECONDS", 0)
    monkeypatch.setattr(MultVAE, "_fit", fail)
    out = tmp_path / "results.json"
    assert main(["benchmark", "--models", "Popularity,MultVAE", "--out", str(out)]) == 2
    assert f"Results so far written to {out}" in capsys.readouterr().err
    assert [row["model"] for row in read_results(out)["models"]] == ["Popularity", "oracle"]


def test_models_of_known_users_run_where_users_are_known_and_are_absent_elsewhere():
    known = run_benchmark(split="per-user", models=["BPR", "Popularity"], params={"iterations": "2", "factors": "2"})
    assert [row["model"] for row in known["models"]] == ["BPR", "Popularity"]
    assert known["examples"][0]["recommended"]["BPR"]
    strong = run_benchmark(models=["BPR", "LMF", "Popularity"])
    assert [row["model"] for row in strong["models"]] == ["Popularity", "oracle"]
    assert "cannot score others" in strong["absent"]["BPR"]
    assert "cannot score others" in strong["absent"]["LMF"]
    with pytest.raises(UnknownUsersError, match="LMF has factors"):
        run_benchmark(models=["BPR", "LMF"])


def test_published_figures_stand_beside_the_card_s_own_protocol_only(quick, monkeypatch):
    card = msgspec.structs.replace(load_card("sample"), published={"Someone": {"ndcg@100": 0.5}})
    monkeypatch.setattr(benchmark, "load_card", lambda name: card)
    assert run_benchmark(models=["Popularity"])["published"] == card.published
    for other in ({"split": "per-user"}, {"split_seed": 1}, {"split_options": {"heldout_users": 300}}):
        assert run_benchmark(models=["Popularity"], **other)["published"] == {}


@pytest.mark.parametrize("split", [None, "per-user"])
def test_the_card_is_read_once(quick, monkeypatch, split):
    names = []
    monkeypatch.setattr("recvae.datasets.card.read_card", lambda path: names.append(path.name) or read_card(path))
    run_benchmark(models=["Popularity"], split=split)
    assert names == ["sample.toml"]


def test_baselines_have_equally_many_settings_to_choose_from():
    tried = {name: len(settings) for name, settings in GRIDS.items() if name not in OURS}
    assert tried.pop("Popularity") == 1  # it has nothing to choose
    assert set(tried.values()) == {12}
    for name in GRIDS:
        models = models_to_try(name, {})
        assert len(models) == len(GRIDS[name])
        assert all(get_params(a) != get_params(b) for i, a in enumerate(models) for b in models[:i])


def test_the_sample_has_settings_of_its_size_which_params_override():
    for name in set(SAMPLE) - set(OURS):  # the baselines keep all of their settings to choose from
        penalties = [{n: value for n, value in settings.items() if n != "neighbours"} for settings in SAMPLE[name]]
        assert penalties == GRIDS[name]
    for name in set(SAMPLE) & set(OURS):
        settings = SAMPLE[name]
        (model,) = models_to_try(name, {"latent_dim": "7"}, SAMPLE)
        assert get_params(model).items() >= (settings[0] | {"latent_dim": 7}).items()
        (default,) = models_to_try(name, {})
        assert get_params(default) == get_params(type(default)())


def test_results_name_the_models_with_settings_of_the_sample():
    quick = {"epochs": "1", "hidden_dim": "4", "hidden_dims": "4", "latent_dim": "2", "n_components": "5"}
    results = run_benchmark(models=["RecVAE", "Popularity"], params=quick, examples=0, show_progress=False)
    assert results["settings"]["sized_for_sample"] == ["RecVAE"]
    (row,) = (row for row in results["models"] if row["model"] == "RecVAE")
    assert row["parameters"]["learning_rate"] == SAMPLE["RecVAE"][0]["learning_rate"]
    assert (row["parameters"]["epochs"], row["parameters"]["latent_dim"]) == (1, 2)


def test_all_is_every_model(quick):
    assert model_names(None) == model_names(["All"]) == ["MultVAE", "Popularity"]
    assert model_names(["popularity"]) == ["Popularity"]


class Narrow(MultVAE):
    """A model of one's own."""


OWN = """
from recvae import MultVAE


class Wide(MultVAE):
    pass
"""


def test_a_model_of_one_s_own_runs_next_to_the_package_s(quick, tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    small = {"epochs": "1", "latent_dim": "4", "hidden_dims": "8"}
    results = run_benchmark(models=[Narrow, "own_models:Wide", "popularity"], params=small, examples=0)
    rows = {row["model"]: row for row in results["models"]}
    assert set(rows) == {"Narrow", "Wide", "Popularity", "oracle"}
    assert results["best_baseline"] == "Popularity"
    assert set(rows["Narrow"]["paired_tests"]) == set(rows["Wide"]["paired_tests"]) == {"Popularity"}
    assert sys.path == path
    del OWN_MODELS["Narrow"], OWN_MODELS["Wide"], Recommender.registry["Wide"]


@pytest.mark.parametrize(
    "model", ["own:Model", "json:loads", "json:nothing", ":Model", "json:", "recvae:Recommender", int]
)
def test_what_is_no_model_of_one_s_own_is_refused_in_a_sentence(quick, model):
    with pytest.raises(InvalidParameterError, match=r"^Expected a model"):
        run_benchmark(models=[model])


def test_a_model_of_one_s_own_has_a_name_of_its_own(quick):
    assert model_names([MultVAE]) == ["MultVAE"]
    with pytest.raises(InvalidParameterError, match="a name of its own, got another MultVAE; rename it"):
        run_benchmark(models=[type("MultVAE", (Narrow,), {})])
    Recommender.registry["MultVAE"] = MultVAE


def test_ours_are_tested_against_every_baseline_and_baselines_against_the_best(quick, monkeypatch):
    monkeypatch.setitem(GRIDS, "ItemKNN", [{"K": 20}, {"K": 1}])
    results = run_benchmark()
    rows = {row["model"]: row for row in results["models"]}
    tests = rows["MultVAE"]["paired_tests"]
    assert results["best_baseline"] == "ItemKNN"
    assert set(tests) == {"Popularity", "ItemKNN"}
    means = {name: row["metrics"]["ndcg@100"]["mean"] for name, row in rows.items()}
    for name, test in tests.items():
        assert test["difference"] == pytest.approx(means["MultVAE"] - means[name])
        assert test["p_value"] <= test["p_holm"] <= 2 * test["p_value"]
    assert set(rows["Popularity"]["paired_tests"]) == {"ItemKNN"}
    assert rows["ItemKNN"]["paired_tests"] == {}
    assert (rows["ItemKNN"]["settings_tried"], rows["MultVAE"]["settings_tried"]) == (2, 1)
    assert rows["ItemKNN"]["choice_seconds"] > rows["MultVAE"]["choice_seconds"] == 0


def test_examples_can_be_left_out_and_then_no_item_is_named(quick):
    bare = run_benchmark(examples=0)
    assert (bare["examples"], bare["item_map"]) == ([], None)
    said = json.dumps(bare)
    sample = make_sample().interactions
    assert not any(title in said for title in sample.titles)
    full = run_benchmark(examples=2)
    assert len(full["examples"]) == 2
    assert set(full["item_map"]["title"]) <= set(sample.titles)


def test_examples_say_where_a_recommendation_came_from(quick):
    example = run_benchmark(examples=1)["examples"][0]
    assert set(example["why"]) == {"MultVAE"}  # popularity explains nothing
    reasons = example["why"]["MultVAE"]
    assert len(reasons) == 3
    for parts in reasons:
        assert {title for title, _ in parts} <= set(example["history"])
        added = [adds for _, adds in parts]
        assert added == sorted(added, reverse=True)
        assert all(adds > 0 for adds in added)


def test_results_hold_what_a_page_is_made_of(quick):
    results = run_benchmark(seeds=2)
    assert results["format"] == FORMAT
    groups = results["groups"]
    for row in results["models"]:
        assert len(row["recall_curve"]) == 100
        for metric in ("recall@20", "recall@50"):
            curve = row["recall_curve"][int(metric.partition("@")[2]) - 1]
            assert curve == pytest.approx(row["metrics"][metric])
        assert len(row["by_activity"]) == len(groups["activity"]) == 5
        assert len(row["by_popularity"]) == len(row["listed"]) == len(groups["popularity"])
        assert sum(row["listed"]) == pytest.approx(1)
    vae, popularity, oracle = results["models"]
    assert len(vae["active_units"]["variances"]) == 8
    assert vae["best_epoch"] in (1, 2)
    assert popularity["active_units"] is popularity["best_epoch"] is None
    assert oracle["model"] == "oracle"
    assert results["item_map"]["model"] == "MultVAE"


def test_absent_libraries_are_reported_as_absent(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "implicit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "implicit", None)
    results = run_benchmark(models=["ALS", "Popularity"])
    assert [row["model"] for row in results["models"]] == ["Popularity", "oracle"]
    assert "pip install" in results["absent"]["ALS"]


def test_real_data_end_to_end(quick, data_home):
    if not (data_home / "ml-100k").is_dir():
        pytest.skip("needs ml-100k in RECVAE_DATA")
    results = run_benchmark("ml-100k", data_home)
    assert results["settings"]["test_users"] + results["settings"]["test_users_dropped"] == 100
    assert all("(19" in label or "[" in label for label in results["examples"][0]["history"])
    assert "oracle" not in [row["model"] for row in results["models"]]


def test_peak_memory_sees_what_was_freed_again():
    with PeakMemory() as before:
        pass
    with PeakMemory() as during:
        import time

        block = bytearray(300 << 20)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(0.1)
        del block
    assert during.mib > before.mib + 250
