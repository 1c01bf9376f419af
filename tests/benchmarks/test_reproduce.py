"""Our models beside published figures: what a match is, and what is said where there is nothing to match."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.accuracy.reproduce import published_models, run_reproduce
from recvae import load_card
from recvae.benchmark.grids import GRIDS
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidParameterError

CARD = """
name = "small"
title = "Small"
path = "events.csv"
[events]
columns = ["user", "item"]
header = true
[protocol]
heldout_users = 40
[published]
"Mult-VAE (Liang et al. 2018)" = {{ "recall@20" = {recall}, "ndcg@100" = {ndcg} }}
"Someone (2020)" = {{ "ndcg@100" = 0.9 }}
"""


@pytest.fixture
def card(tmp_path, monkeypatch):
    """The file of a card whose published figures are to be filled in."""
    monkeypatch.setitem(GRIDS, "MultVAE", [{"epochs": 3, "latent_dim": 8, "hidden_dims": (16,)}])
    cells = make_sample(n_users=300, n_items=60).interactions.matrix.tocoo()
    rows = zip(cells.row, cells.col, strict=True)
    (tmp_path / "events.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    return tmp_path / "small.toml"


def test_a_figure_is_reproduced_within_two_standard_errors(card, tmp_path, capsys):
    card.write_text(CARD.format(recall=0.5, ndcg=0.5))
    found = {row["metric"]: row for row in run_reproduce(str(card), log=lambda line: None)["figures"]}
    assert list(found) == ["recall@20", "ndcg@100"]
    near = {row["metric"]: row["mean"] + 1.9 * row["stderr"] for row in found.values()}
    out = tmp_path / "out.json"
    for ndcg, status in ((near["ndcg@100"], 0), (found["ndcg@100"]["mean"] - 2.1 * found["ndcg@100"]["stderr"], 1)):
        card.write_text(CARD.format(recall=near["recall@20"], ndcg=ndcg))
        assert main(["reproduce", "--dataset", str(card), "--models", "multvae", "--out", str(out)]) == status
        figures = json.loads(out.read_text())["figures"]
        assert [row["within"] for row in figures] == [True, status == 0]
        assert figures[1]["difference"] == pytest.approx(figures[1]["mean"] - ndcg)
        printed = capsys.readouterr().out
        assert "| Mult-VAE (Liang et al. 2018) | ndcg@100 | " in printed
        assert ("| no |" in printed) == bool(status)


def test_where_the_data_are_absent_it_says_so_and_stops(tmp_path, capsys):
    assert main(["reproduce", "--dataset", "netflix", "--data-home", str(tmp_path), "--models", "MultVAE"]) == 2
    captured = capsys.readouterr()
    assert "The data set netflix is not in" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_models_without_published_figures_are_refused(card):
    card.write_text(CARD.format(recall=0.5, ndcg=0.5))
    with pytest.raises(InvalidParameterError, match="published figures of, MultVAE; got ALS"):
        run_reproduce(str(card), models=["ALS"])
    with pytest.raises(InvalidParameterError, match="none so far; got none"):
        run_reproduce("ml-1m")


@pytest.mark.parametrize("name", ["ml-20m", "netflix", "msd"])
def test_the_cards_name_our_models_as_the_papers_do(name):
    card = load_card(name)
    rows = published_models(card)
    assert rows["MultVAE"] == "Mult-VAE (Liang et al. 2018)"
    assert rows["MultDAE"] == "Mult-DAE (Liang et al. 2018)"
    assert all("ndcg@100" in card.published[label] for label in rows.values())
