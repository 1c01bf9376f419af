import pytest

from recvae import benchmark
from recvae.baselines import Popularity
from recvae.benchmark import run_benchmark
from recvae.memory import PeakMemory
from recvae.models import MultVAE


@pytest.fixture
def quick(monkeypatch):
    """Two models that train in no time."""
    candidates = {"MultVAE": [MultVAE(epochs=2, latent_dim=8, hidden_dims=(16,))], "Popularity": [Popularity()]}
    monkeypatch.setattr(benchmark, "CANDIDATES", candidates)


def test_seeds_are_averaged_by_user(quick):
    one, two = (run_benchmark(seeds=seeds)["models"][0] for seeds in (1, 2))
    assert len(two["by_seed"]) == 2
    assert two["by_seed"][0] == one["by_seed"][0] != two["by_seed"][1]
    assert two["metrics"]["ndcg@100"]["mean"] == pytest.approx(sum(two["by_seed"]) / 2)
    assert len(two["history"]) == 2
    assert two["history"][0]["kl"] > 0


def test_models_without_a_seed_run_once(quick):
    assert len(run_benchmark(seeds=3, models=["Popularity"])["models"][0]["by_seed"]) == 1


def test_examples_can_be_left_out(quick):
    assert run_benchmark(models=["Popularity"], examples=0)["examples"] == []
    assert len(run_benchmark(models=["Popularity"], examples=2)["examples"]) == 2


def test_settings_are_chosen_on_validation_users(split):
    candidates = [MultVAE(epochs=1, kl_cap=100.0, kl_schedule="constant"), MultVAE(epochs=30, batch_size=50)]
    assert benchmark._choose(candidates, split, False)["epochs"] == 30
    assert benchmark._choose(candidates[:1], split, False)["epochs"] == 1


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
