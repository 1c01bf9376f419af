"""Rankings of candidates only, and results by item, by group and as frames: against brute force."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

import recvae
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError
from recvae.evaluation.breakdown import by_item, by_item_group, by_user_group
from recvae.models.baselines import BPR

N_ITEMS = 40


class Scores:
    """A model with known scores, which has nothing but implicit's `recommend`."""

    def __init__(self, scores):
        self.scores = scores

    def recommend(self, userid, user_items, N=10):
        scores = np.where(user_items.toarray() > 0, -np.inf, self.scores[userid])
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :N]
        best = np.take_along_axis(scores, ids, axis=1)
        worst = np.finfo(np.float32).min
        return np.where(best > -np.inf, ids, -1).astype(np.int32), np.maximum(best, worst).astype(np.float32)


@pytest.fixture(scope="module")
def holdout():
    random = np.random.default_rng(0)
    cells = random.random((30, N_ITEMS))
    held_out = (cells < 0.1).astype(np.float32)
    held_out[:3] = 0  # these users are not evaluated
    users = np.array([f"u{n}" for n in range(30)], dtype=object)
    items = 3 * np.arange(N_ITEMS) + 5
    fold_in = ((cells > 0.1) & (cells < 0.3)).astype(np.float32)
    return recvae.Holdout(sparse.csr_matrix(fold_in), sparse.csr_matrix(held_out), users, item_ids=items)


@pytest.fixture(scope="module")
def model():
    return Scores(np.random.default_rng(1).normal(size=(30, N_ITEMS)))


def brute(model, holdout, allowed, k):
    """Recall and NDCG at k of each user with something held out, over their allowed items."""
    values = []
    for user in range(holdout.held_out.shape[0]):
        held = set(holdout.held_out[user].indices)
        if not held:
            continue
        seen = set(holdout.fold_in[user].indices)
        ranked = sorted(set(allowed[user]) - seen, key=lambda item: (-model.scores[user, item], item))[:k]
        gains = [1 / np.log2(rank + 2) for rank, item in enumerate(ranked) if item in held]
        best = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(held))))
        values.append((len(gains) / min(k, len(held)), sum(gains) / best))
    return np.array(values).T


@pytest.fixture(scope="module")
def chosen(holdout):
    random = np.random.default_rng(2)
    return [np.sort(random.choice(N_ITEMS, random.integers(1, 15), replace=False)) for _ in holdout.users]


def forms(holdout, chosen):
    """The same candidates in all forms."""
    raw = {user: holdout.item_ids[items].tolist() for user, items in zip(holdout.users, chosen, strict=True)}
    pairs = [(user, item) for user, items in raw.items() for item in items]
    rows = np.repeat(np.arange(len(chosen)), [len(items) for items in chosen])
    cells = (np.ones(len(rows)), (rows, np.concatenate(chosen)))
    return {
        "dict": dict(reversed(raw.items())),
        "lists": list(raw.values()),
        "frame": pd.DataFrame(pairs, columns=["user", "item"]).sample(frac=1, random_state=0),
        "matrix": sparse.csr_matrix(cells, shape=holdout.held_out.shape, dtype=np.float32),
    }


@pytest.mark.parametrize("form", ["dict", "lists", "frame", "matrix"])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_given_candidates(form, k, model, holdout, chosen):
    result = recvae.evaluate(model, holdout, [f"recall@{k}", f"ndcg@{k}"], candidates=forms(holdout, chosen)[form])
    recall, ndcg = brute(model, holdout, chosen, k)
    assert list(result) == [f"recall@{k} (given candidates)", f"ndcg@{k} (given candidates)"]
    assert result[f"recall@{k} (given candidates)"].values == pytest.approx(recall)
    assert result[f"ndcg@{k} (given candidates)"].values == pytest.approx(ndcg)
    missed = sum(len(set(h.indices) - set(c)) for h, c in zip(holdout.held_out, chosen, strict=True))
    assert f"{missed} of {holdout.held_out.nnz} held-out items are no candidates" in result.protocol
    assert result.protocol in repr(result)


def test_all_items_as_candidates_is_the_full_ranking(model, holdout):
    everything = [holdout.item_ids.tolist()] * 30
    full = recvae.evaluate(model, holdout, "ndcg@10", keep_lists=True)
    result = recvae.evaluate(model, holdout, "ndcg@10", candidates=everything, keep_lists=True, block_users=4)
    assert result["ndcg@10 (given candidates)"].values.tolist() == full["ndcg@10"].values.tolist()
    assert result.ranked.tolist() == full.ranked.tolist()


def test_sampled_negatives(model, holdout):
    metrics = ["recall@3", "ndcg@3"]
    result = recvae.evaluate(model, holdout, metrics, sampled_negatives=6, seed=4, keep_lists=True)
    assert list(result) == ["recall@3 (6 sampled negatives)", "ndcg@3 (6 sampled negatives)"]
    again = recvae.evaluate(model, holdout, metrics, sampled_negatives=6, seed=4, keep_lists=True, block_users=1)
    assert again.ranked.tolist() == result.ranked.tolist()
    other = recvae.evaluate(model, holdout, metrics, sampled_negatives=6, seed=5, keep_lists=True)
    assert other.ranked.tolist() != result.ranked.tolist()
    # the whole lists are the candidates
    lists = recvae.evaluate(model, holdout, f"recall@{N_ITEMS}", sampled_negatives=6, seed=4, keep_lists=True).ranked
    users = np.flatnonzero(np.diff(holdout.held_out.indptr))
    chosen = [[] for _ in holdout.users]
    for user, ids in zip(users, lists, strict=True):
        chosen[user] = ids[ids >= 0]
        held, seen = set(holdout.held_out[user].indices), set(holdout.fold_in[user].indices)
        assert held <= set(chosen[user])
        assert not seen & set(chosen[user])
        assert len(chosen[user]) == len(held) + 6
    recall, ndcg = brute(model, holdout, chosen, 3)
    assert result["recall@3 (6 sampled negatives)"].values == pytest.approx(recall)
    assert result["ndcg@3 (6 sampled negatives)"].values == pytest.approx(ndcg)


def test_more_negatives_than_items_is_the_full_ranking(model, holdout):
    full = recvae.evaluate(model, holdout, "ndcg@10")["ndcg@10"].values
    result = recvae.evaluate(model, holdout, "ndcg@10", sampled_negatives=1000)
    assert result["ndcg@10 (1000 sampled negatives)"].values == pytest.approx(full)


def test_negatives_are_drawn_uniformly():
    held_out = sparse.csr_matrix((np.ones(4000), (np.arange(4000), np.full(4000, 7))), shape=(4000, 20))
    fold_in = sparse.csr_matrix((np.ones(4000), (np.arange(4000), np.full(4000, 2))), shape=(4000, 20))
    model = Scores(np.zeros((4000, 20)))
    holdout = recvae.Holdout(fold_in, held_out)
    ranked = recvae.evaluate(model, holdout, "recall@20", sampled_negatives=9, keep_lists=True).ranked
    counts = np.bincount(ranked[ranked >= 0], minlength=20)
    assert counts[7] == 4000
    assert counts[2] == 0
    others = np.delete(counts, [2, 7])  # each of 18 in 9 of 18 draws: 2000, standard deviation 32
    assert np.abs(others - 2000).max() < 130


def test_what_candidates_refuse(model, holdout):
    with pytest.raises(InvalidParameterError, match="got both"):
        recvae.evaluate(model, holdout, candidates=[[]] * 30, sampled_negatives=5)
    with pytest.raises(InvalidDataError, match="got none for 26, such as 'u4'"):
        recvae.evaluate(model, holdout, candidates={"u3": [5]})
    with pytest.raises(InvalidDataError, match="shape"):
        recvae.evaluate(model, holdout, candidates=sparse.csr_matrix((3, N_ITEMS), dtype=np.float32))
    result = recvae.evaluate(model, holdout, "ndcg@10", candidates=[[5, 6]] * 30)  # 6 is no item
    assert "30 on items that the holdout does not have" in result.protocol
    with pytest.raises(InvalidDataError, match="all items"):
        _ = result.lists["coverage"]
    with pytest.raises(KeyError, match="given candidates"):
        _ = result["ndcg@10"]


class Plain:
    """A model of ours as any other, which ranks all items."""

    def __init__(self, model):
        self.model, self.item_ids_ = model, model.item_ids_

    def recommend(self, userid, user_items, N=10):
        return self.model.recommend(userid, user_items, N, recalculate_user=True)


@pytest.mark.parametrize("reordered", [False, True])
def test_a_model_of_ours_ranks_candidates_as_it_ranks_all(reordered, split):
    test = split.test
    model = recvae.EASE().fit(split.train)
    if reordered:
        test = test.over(test.item_ids[::-1].copy())
    options = {"sampled_negatives": 20, "keep_lists": True, "block_users": 7}
    result = recvae.evaluate(model, test, "ndcg@10", **options)
    expected = recvae.evaluate(Plain(model), test, "ndcg@10", **options)
    assert result.ranked.tolist() == expected.ranked.tolist()
    name = "ndcg@10 (20 sampled negatives)"
    assert result[name].values.tolist() == expected[name].values.tolist()


def test_a_model_of_known_users_ranks_candidates_too():
    split = recvae.per_user_split(make_sample(n_users=60, n_items=40).interactions, valid_share=0.2)
    model = BPR(iterations=3, factors=8, random_state=0).fit(split.train)
    result = recvae.evaluate(model, split.test, "ndcg@10", sampled_negatives=3, keep_lists=True)
    lengths = (result.ranked >= 0).sum(1)
    assert (lengths <= 3 + np.diff(split.test.held_out.indptr)).all()
    assert lengths.max() > 3


def test_frames(model, holdout):
    result = recvae.evaluate(model, holdout, ["recall@5", "ndcg@5"])
    table = result.frame()
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == {
        "metric": ["recall@5", "ndcg@5"],
        "mean": [result["recall@5"].mean, result["ndcg@5"].mean],
        "stderr": [result["recall@5"].stderr, result["ndcg@5"].stderr],
        "users": [27, 27],
    }
    frame = result.frame("pandas", per_user=True)
    assert frame.columns.tolist() == ["user", "recall@5", "ndcg@5"]
    assert frame.user.tolist() == result.users.tolist()
    assert frame["ndcg@5"].tolist() == result["ndcg@5"].values.tolist()
    assert isinstance(result.frame("polars"), pl.DataFrame)
    with pytest.raises(UnknownNameError, match="pandas"):
        result.frame("panda")


@pytest.fixture(scope="module")
def listed(model, holdout):
    return recvae.evaluate(model, holdout, ["ndcg@8", "recall@8"], keep_lists=True)


def test_by_item(model, holdout, listed):
    frame = by_item(listed, holdout, 6, "pandas").set_index("item")
    users = np.flatnonzero(np.diff(holdout.held_out.indptr))
    for column, item in enumerate(holdout.item_ids):
        held = [column in holdout.held_out[user].indices for user in users]
        first = [column in ids[:6] for ids in listed.ranked]
        hits = sum(h and f for h, f in zip(held, first, strict=True))
        row = frame.loc[item]
        assert (row.held_out, row.hits, row.listed) == (sum(held), hits, sum(first))
        assert row.recall == pytest.approx(hits / sum(held)) if sum(held) else np.isnan(row.recall)


def test_by_group_of_users(listed):
    countries = {user: "ab"[int(user[1:]) % 2] for user in listed.users}
    table = by_user_group(listed, countries).to_pylist()
    assert [(row["group"], row["metric"]) for row in table] == [
        (group, metric) for group in "ab" for metric in ("ndcg@8", "recall@8")
    ]
    for row in table:
        values = [
            v for u, v in zip(listed.users, listed[row["metric"]].values, strict=True) if countries[u] == row["group"]
        ]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["stderr"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
        assert row["users"] == len(values)
    assert by_user_group(listed, [countries[user] for user in listed.users]).to_pylist() == table
    with pytest.raises(InvalidDataError, match="none for 'u3'"):
        by_user_group(listed, {"u9": "a"})
    with pytest.raises(InvalidDataError, match="27 users"):
        by_user_group(listed, ["a", "b"])


def test_by_group_of_items(holdout, listed):
    genres = {int(item): "war" if n % 3 else "drama" for n, item in enumerate(holdout.item_ids)}
    rows = {row["group"]: row for row in by_item_group(listed, holdout, genres, 5).to_pylist()}
    per_item = by_item(listed, holdout, 5, "pandas")
    for group, row in rows.items():
        of_group = per_item[[genres[item] == group for item in per_item["item"]]]
        assert row["items"] == len(of_group)
        assert (row["held_out"], row["hits"]) == (of_group.held_out.sum(), of_group.hits.sum())
        assert row["recall"] == pytest.approx(of_group.hits.sum() / of_group.held_out.sum())
        assert row["listed"] == pytest.approx(of_group.listed.sum() / per_item.listed.sum())
    assert sorted(rows) == ["drama", "war"]


def test_what_tables_refuse(model, holdout, listed):
    with pytest.raises(InvalidDataError, match="keep_lists"):
        by_item(recvae.evaluate(model, holdout, "ndcg@8"), holdout)
    with pytest.raises(InvalidParameterError, match="at most 8"):
        by_item(listed, holdout, 9)
    other = recvae.Holdout(holdout.fold_in, holdout.held_out)
    with pytest.raises(InvalidDataError, match="other users"):
        by_item(listed, other)


def test_the_command(tmp_path, capsys):
    model, out, data = tmp_path / "m.recvae", tmp_path / "metrics.csv", ["--dataset", "sample", "--heldout-users", "50"]
    assert main(["train", *data, "--model", "Popularity", "--out", str(model)]) == 0
    command = ["evaluate", str(model), *data, "--metrics", "ndcg@10", "--out", str(out)]
    assert main([*command, "--sampled-negatives", "50"]) == 0
    assert "ndcg@10 (50 sampled negatives)" in capsys.readouterr().out
    frame = pd.read_csv(out)
    assert frame["metric"].tolist() == ["ndcg@10 (50 sampled negatives)"]
    split = recvae.load_split("sample", split="strong", heldout_users=50)
    items = split.items[:30].tolist()
    pd.DataFrame([(u, i) for u in split.test.users for i in items], columns=["user", "item"]).to_csv(
        tmp_path / "candidates.csv", index=False
    )
    assert main([*command, "--candidates", str(tmp_path / "candidates.csv"), "--per-user"]) == 0
    result = recvae.evaluate(recvae.load(model), split.test, "ndcg@10", candidates=[items] * len(split.test.users))
    frame = pd.read_csv(out)
    assert frame["ndcg@10 (given candidates)"].tolist() == pytest.approx(result["ndcg@10 (given candidates)"].values)
