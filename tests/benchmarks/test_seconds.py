"""Seconds and accuracy of fits: a small run, the comparison of two, and its interval."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.accuracy.seconds import compare_seconds, mean_and_half_width
from recvae.errors import InvalidDataError


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A published split of 60 users and 40 items, by the file of its card."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "x").mkdir()
    for name, shift, n in (("train", 0, 12), ("test", 12, 4)):
        rows = [" ".join(map(str, [user, *((user + 3 * (shift + k)) % 40 for k in range(n))])) for user in range(60)]
        (folder / "x" / f"{name}.txt").write_text("\n".join(rows))
    text = 'name = "x"\ntitle = "x"\n[events]\nfile = "train.txt"\nlayout = "adjacency"\ndelimiter = " "\n'
    text += '[test]\nfile = "test.txt"\nlayout = "adjacency"\ndelimiter = " "\n'
    text += '[protocol]\nsplit = "given"\nvalid_share = 0.2\nmetrics = ["recall@5", "ndcg@10"]\n'
    (folder / "card.toml").write_text(text)
    return str(folder / "card.toml")


def test_a_run_and_its_comparison_with_itself(card, tmp_path, capsys):
    out, summary = tmp_path / "a.json", tmp_path / "summary.json"
    tree = Path(__file__).parents[2]
    options = [
        "--data-home",
        str(Path(card).parent),
        "--model",
        "MultVAE",
        "--seeds",
        "1",
        "--params",
        '{"epochs": 1, "latent_dim": 4}',
        "--tree",
        str(tree),
    ]
    assert main(["seconds", "--dataset", card, *options, "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert (results["metric"], results["model"]) == ("ndcg@10", "MultVAE")
    (fit,) = results["fits"]
    assert fit["seconds"] > 0
    assert len(fit["values"]) == len(results["users"]) == 60
    assert fit["mean"] == pytest.approx(np.mean(fit["values"]))
    assert main(["seconds", "--compare", str(out), str(out), "--out", str(summary)]) == 0
    compared = json.loads(summary.read_text())
    assert (compared["difference"], compared["low"], compared["high"]) == (0, 0, 0)
    assert compared["seconds"]["ratio"] == 1
    assert "ratio 1.000" in capsys.readouterr().out


def write(path, values, seconds, **more):
    fits = [
        {"seed": n, "seconds": s, "cpu_seconds": 2 * s, "values": row}
        for n, (row, s) in enumerate(zip(values, seconds, strict=True))
    ]
    about = {"dataset": "x", "model": "RecVAE", "metric": "ndcg@100", "users": list(range(len(values[0])))}
    path.write_text(json.dumps(about | {"fits": fits} | more))
    return path


def test_differences_and_ratios_by_hand(tmp_path):
    before = write(tmp_path / "a", [[0.1, 0.2], [0.3, 0.4]], [10, 20])
    after = write(tmp_path / "b", [[0.2, 0.2], [0.3, 0.6]], [5, 5])
    found = compare_seconds(before, after)
    assert found["difference"] == pytest.approx(0.075)
    assert found["difference_by_seed"] == pytest.approx([0.05, 0.1])
    assert found["seconds"] == {"before": 15, "after": 5, "ratio": 0.375}
    assert found["cpu_seconds"]["before"] == 30
    assert found["low"] < 0.075 < found["high"]


@pytest.mark.parametrize("other", [{"dataset": "y"}, {"metric": "ndcg@20"}, {"users": [1, 0]}, {"fits": []}])
def test_other_users_data_and_seeds_are_not_compared(tmp_path, other):
    before = write(tmp_path / "a", [[0.1, 0.2]], [1])
    with pytest.raises(InvalidDataError, match="Expected the same"):
        compare_seconds(before, write(tmp_path / "b", [[0.1, 0.2]], [1], **other))


def test_one_seed_has_the_interval_of_a_t_test():
    mean, half = mean_and_half_width(np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert mean == 2.5
    assert half == pytest.approx(3.182446 * np.sqrt(5 / 3 / 4))  # t(3) at .975


@pytest.mark.parametrize("deviations", [(0.3, 1.0, 1.0), (0.0, 1.0, 3.0), (1.0, 0.1, 1.0)])
def test_the_interval_covers_the_truth_in_about_95_of_100(deviations):
    """Differences with effects of seeds, of users and of both; where there are few seeds it may cover more."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        parts = random.normal(size=(3, 1)), random.normal(size=(1, 50)), random.normal(size=(3, 50))
        found, half = mean_and_half_width(sum(d * part for d, part in zip(deviations, parts, strict=True)))
        covered += abs(found) <= half
    assert 925 <= covered <= 995
