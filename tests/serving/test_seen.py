"""What users have touched is never recommended to them, what they liked is what the model reads: at every door."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import recvae
from recvae import EASE, Interactions, MultVAE
from recvae.cli.main import main
from recvae.data.histories import read_histories
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.models.base import UnknownItemsWarning
from tests import oracle
from tests.models.test_contract import EVERY, KNOWN_USERS

RATINGS = {"user": "who", "item": "film", "value": "stars"}


@pytest.fixture(scope="module")
def ratings():
    """Of 120 users, stars from 0 to 5; two users liked nothing at all, and some items are new."""
    cells = make_sample(120, 40).interactions.matrix.tocoo()
    random = np.random.default_rng(0)
    repeated = np.concatenate([np.arange(cells.nnz), random.integers(0, cells.nnz, 200)])
    stars = random.integers(0, 6, len(repeated)).astype(float)
    stars[np.isin(cells.row[repeated], [3, 77])] = 1.0
    films = np.array([f"film {item}" for item in cells.col[repeated]], dtype=object)
    films[::40] = "film new"
    users = np.array([f"user {user * 37 % 120:03}" for user in cells.row[repeated]], dtype=object)
    return pa.table({"who": users, "film": films, "stars": stars})


@pytest.fixture(scope="module")
def model(ratings):
    known = ratings.filter(pa.compute.not_equal(ratings["film"], "film new"))
    return EASE(l2=20.0).fit(Interactions.from_frame(known, **RATINGS, min_value=4, values="raw"))


# rows ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.data())
def test_lists_equal_an_independent_scorer_s_whatever_rules_meet(board, data):
    """seen beside the rows' own items, lists of items and matrices of them, plain and exploring at the mean."""
    model = data.draw(st.sampled_from(board))
    n_users, n_items = data.draw(st.integers(1, 4)), 50
    liked, seen, left_out, only = (data.draw(hnp.arrays(bool, (n_users, n_items), fill=st.nothing())) for _ in range(4))
    stored = data.draw(st.sampled_from([0.0, 1.0, -3.0, np.nan]))  # a rating of anything has been given
    rules = {"filter_already_liked_items": data.draw(st.booleans())}
    rule = data.draw(st.sampled_from(["none", "filter_items", "items", "filter_items of each", "items of each"]))
    free = ~seen if not rules["filter_already_liked_items"] else ~seen & ~liked
    if rule == "filter_items":
        rules["filter_items"], free = np.flatnonzero(left_out[0]), free & ~left_out[0]
    elif rule == "items":
        only[0, 7] = True
        rules["items"], free = np.flatnonzero(only[0]), free & only[0]
    elif rule == "filter_items of each":
        rules["filter_items"], free = sparse.csr_matrix(left_out.astype(float)), free & ~left_out
    elif rule == "items of each":
        rules["items"], free = sparse.csr_matrix(only.astype(float)), free & only
    if isinstance(model, MultVAE) and data.draw(st.booleans()):
        rules |= {"explore": 0.0, "random_state": 0}
    rows, touched = sparse.csr_matrix(liked.astype(np.float32)), sparse.csr_matrix(seen.astype(float))
    touched.data[:] = stored
    before = [array.copy() for array in (touched.data, touched.indices, touched.indptr)]
    ids, values = model.recommend(np.arange(n_users), rows, N=6, seen=touched, **rules)[:2]
    scores = model.score(rows)
    for user in range(n_users):
        best = sorted(np.flatnonzero(free[user]), key=lambda item: (-scores[user, item], item))[: ids.shape[1]]
        assert not seen[user, ids[user][ids[user] >= 0]].any()
        np.testing.assert_allclose(values[user, : len(best)], scores[user, best], rtol=1e-4, atol=1e-5)
        if isinstance(model, EASE):  # whose scores do not depend on the size of a batch
            assert ids[user].tolist() == best + [-1] * (ids.shape[1] - len(best))
    for array, old in zip((touched.data, touched.indices, touched.indptr), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.fixture(scope="module")
def board(checkerboard):
    rows = Interactions.from_matrix(checkerboard)
    network = MultVAE(latent_dim=4, hidden_dims=(8,), epochs=2, random_state=0).fit(rows, show_progress=False)
    return [EASE(l2=1.0).fit(rows), network]


@pytest.mark.parametrize("name", EVERY)
def test_every_model_masks_what_was_seen(name, checkerboard):
    """Those of known users and neighbours too: seen is what filter_items of each user would be."""
    quick = {"epochs": 1} if "epochs" in EVERY[name]().get_params() else {}
    model = EVERY[name](**quick).fit(checkerboard, show_progress=False)
    users, rows = [4, 9, 30], checkerboard[[4, 9, 30]]
    plain, _ = model.recommend(users, rows, N=50, filter_already_liked_items=False)
    touched = sparse.csr_matrix(np.isin(np.arange(50), plain[0, :7])[None].repeat(3, axis=0))
    ids, scores = model.recommend(users, rows, N=9, seen=touched)
    expected = model.recommend(users, rows, N=9, filter_items=touched)
    assert ids.tolist() == expected[0].tolist()
    assert scores.tolist() == expected[1].tolist()
    one, _ = model.recommend(4, rows[0], N=9, seen=sparse.csr_array(touched)[0])
    assert not set(one) & set(plain[0, :7])
    if name not in KNOWN_USERS:
        empty, _ = model.recommend(0, sparse.csr_matrix((1, 50)), N=50, seen=touched[0])
        assert not set(empty) & set(plain[0, :7])


def test_what_was_seen_is_masked_whatever_the_flag_of_the_liked_says(board, checkerboard):
    seen = sparse.csr_matrix(([0.0, 0.0], ([0, 0], [2, 4])), shape=(1, 50))
    ids, _ = board[0].recommend(0, checkerboard[0], N=50, filter_already_liked_items=False, seen=seen)
    assert sorted(ids[ids >= 0]) == [item for item in range(50) if item not in (2, 4)]


@pytest.mark.parametrize(
    ("seen", "error", "words"),
    [
        (sparse.csr_matrix((2, 50)), InvalidDataError, "a row of seen for each of 1 users, got 2"),
        (sparse.csr_matrix((1, 49)), InvalidDataError, "Expected 50 columns"),
        (sparse.csc_matrix((1, 50)), InvalidDataError, "seen needs to be a CSR sparse matrix, got csc"),
        ([1, 2], InvalidTypeError, "seen needs to be a CSR sparse matrix, got list"),
        (np.zeros((1, 50)), InvalidTypeError, "seen needs to be a CSR sparse matrix, got ndarray"),
    ],
)
def test_what_is_no_matrix_of_the_seen_is_refused(seen, error, words, board, checkerboard):
    with pytest.raises(error, match=words):
        board[0].recommend(0, checkerboard[0], seen=seen)


@pytest.mark.parametrize(("place", "wrong"), [("indices", 50), ("indices", -1), ("indptr", 99)])
def test_a_matrix_of_the_seen_that_lies_is_refused(place, wrong, board, checkerboard):
    seen = sparse.csr_matrix(np.eye(1, 50))
    getattr(seen, place)[-1] = wrong
    with pytest.raises(InvalidDataError, match="well-formed"):
        board[0].recommend(0, checkerboard[0], seen=seen)


# raw ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_one_frame_of_ratings_says_what_was_liked_and_what_was_seen(make, ratings, model):
    frame = make(ratings.to_pydict())
    with pytest.warns(UnknownItemsWarning) as warned:
        found = model.recommend_for(frame, N=5, **RATINGS, min_value=4)
    assert warned[0].message.unknown.examples == ("film new",)
    expected = oracle.lists(model, ratings, 5, **RATINGS, min_value=4)
    assert len(expected) == 120
    oracle.same(oracle.of_table(found), expected)


def test_users_in_seen_alone_get_lists_in_the_order_of_the_histories(model):
    histories = {"zoe": ["film 3", "film 9"], "ann": []}
    seen = {"bob": ["film 1", "film ?"], "ann": ["film 2"], "zoe": ["film 4", "film 3"], "eve": []}
    found = oracle.of_table(model.recommend_for(histories, N=40, seen=seen))
    assert list(found) == ["zoe", "ann", "bob", "eve"]
    for user, items in found.items():
        touched = {*histories.get(user, []), *seen[user]}
        row = dict.fromkeys(histories.get(user, []), 1.0)
        assert items[0] == oracle.best(model, row, touched, 40)[0]
    rows = [(user, item) for user, items in histories.items() for item in items]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    others = pd.DataFrame({"user": list(seen), "item": list(seen.values())})
    sorted_too = oracle.of_table(model.recommend_for(frame, N=40, seen=others))
    assert list(sorted_too) == ["ann", "bob", "eve", "zoe"]
    assert all(sorted_too[user][0] == found[user][0] for user in found)
    lists = oracle.of_table(model.recommend_for(list(histories.values()), N=40, seen=[seen["zoe"], [], seen["bob"]]))
    assert list(lists) == [0, 1, 2]
    assert lists[0][0] == found["zoe"][0]
    assert lists[2][0] == found["bob"][0]


def test_ids_are_matched_as_they_are_written(checkerboard):
    model = EASE(l2=1.0).fit(Interactions.from_matrix(checkerboard))
    found = oracle.of_table(model.recommend_for({7: [1, 3]}, N=50, seen={"7": ["5", "99"]}))
    assert sorted(found[7][0]) == [item for item in range(50) if item not in (1, 3, 5)]
    with pytest.raises(InvalidTypeError, match="all of one kind"):
        model.recommend_for({7: [1, 3]}, seen={"ann": [5]})


def test_the_liked_may_come_again_and_the_seen_may_not(model):
    events = pd.DataFrame({"user": ["a"] * 4, "item": ["film 1", "film 2", "film 2", "film 3"], "stars": [5, 1, 5, 1]})
    again = {"N": 40, "value": "stars", "min_value": 4, "filter_already_liked_items": False}
    found = set(model.recommend_for(events, **again)["item"])
    assert {"film 1", "film 2"} <= found
    assert "film 3" not in found
    assert "film 1" not in set(model.recommend_for(events, **again, seen={"a": ["film 1"]})["item"])


@pytest.mark.parametrize("min_value", [None, 2.0, 0.0, -5.0])
def test_zeros_and_values_below_the_least_are_seen(min_value):
    frame = pa.table({"user": [1, 1, 1, 2], "item": [0, 1, 2, 2], "value": [3.0, 0.0, 1.0, 0.0]})
    read = read_histories(frame, [0, 1, 2], value="value", min_value=min_value)
    weak = min_value == 2.0
    assert read.users.tolist() == [1, 2]
    assert read.rows.toarray().tolist() == [[3, 0, 0 if weak else 1], [0, 0, 0]]
    assert read.seen.toarray().tolist() == [[0, 1, 1 if weak else 0], [0, 0, 1]]


def test_dislikes_below_the_least_value_are_seen_and_what_is_no_number_is_refused():
    frame = {"user": [1, 1, 1], "item": [0, 1, 2], "value": [3.0, -4.0, -np.inf]}
    read = read_histories(pa.table(frame), [0, 1, 2], value="value", min_value=1)
    assert read.seen.toarray().tolist() == [[0, 1, 1]]
    for odd in (np.nan, np.inf):
        with pytest.raises(InvalidDataError, match="finite"):
            read_histories(pa.table(frame | {"value": [3.0, odd, 1.0]}), [0, 1, 2], value="value", min_value=1)
    with pytest.raises(InvalidDataError, match="zero or more"):
        read_histories(pa.table(frame | {"value": [3.0, -4.0, 1.0]}), [0, 1, 2], value="value")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"min_value": 4}, InvalidParameterError, "the column of values for min_value=4"),
        ({"min_value": float("nan"), "value": "stars"}, InvalidParameterError, "min_value to be a number, got nan"),
        ({"seen": [["film 1"]]}, InvalidTypeError, "Expected seen as a dict or a frame, .* got list"),
        ({"seen": sparse.csr_matrix((1, 40))}, InvalidTypeError, "Expected seen as a dict .* got csr_matrix"),
        ({"seen": {"a": "film 1"}}, InvalidTypeError, "a list of ids as what was seen by user 'a', got str"),
        ({"seen": pa.table({"user": ["a"]})}, InvalidDataError, "Expected one column 'item'"),
        ({"seen": pa.table({"user": ["a"], "item": [None]})}, InvalidDataError, "a value in every row of 'item'"),
    ],
)
def test_what_cannot_say_what_was_seen_is_refused(arguments, error, words, model):
    frame = pd.DataFrame({"user": ["a"], "item": ["film 1"], "stars": [5]})
    with pytest.raises(error, match=words):
        model.recommend_for(frame, **arguments)


# the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(model, ratings, tmp_path):
    model.save(tmp_path / "m.recvae")
    pd.DataFrame(ratings.to_pydict()).to_csv(tmp_path / "ev.csv", index=False)
    flags = [part for name, column in RATINGS.items() for part in (f"--{name}", column)]
    return ["recommend", str(tmp_path / "m.recvae"), "--input", str(tmp_path / "ev.csv"), *flags, "-N", "5"]


def test_the_command_gives_everybody_a_list_of_what_they_have_not_touched(command, model, ratings, tmp_path, capsys):
    assert main([*command, "--min-value", "4", "--out", str(tmp_path / "top.parquet")]) == 0
    printed = capsys.readouterr().err
    assert "pairs of a user and an item were seen and not liked: they are not recommended." in printed
    assert "2 of 120 users liked nothing that the model knows" in printed
    expected = oracle.lists(model, ratings, 5, **RATINGS, min_value=4)
    oracle.same(oracle.of_table(pq.read_table(tmp_path / "top.parquet")), expected)
    # zeros are seen without --min-value too; --min-user asks for who liked so many
    assert main([*command, "--out", str(tmp_path / "zeros.parquet")]) == 0
    oracle.same(oracle.of_table(pq.read_table(tmp_path / "zeros.parquet")), oracle.lists(model, ratings, 5, **RATINGS))
    assert main([*command, "--min-value", "4", "--min-user", "1", "--out", str(tmp_path / "some.parquet")]) == 0
    some = oracle.of_table(pq.read_table(tmp_path / "some.parquet"))
    oracle.same(some, {user: lists for user, lists in expected.items() if user in some})
    assert len(some) == 118


def test_a_card_s_own_least_value_says_what_was_liked(command, model, ratings, tmp_path):
    """Its least number of events of a user is for training: here everybody gets a list."""
    card = (
        'name = "ours"\ntitle = "Ours"\npath = "ev.csv"\n[events]\ncolumns = ["user", "item", "value"]\nheader = true\n'
        "[protocol]\nheldout_users = 9\nmin_value = 4\nmin_user = 5\n"
    )
    (tmp_path / "ours.toml").write_text(card)
    out = tmp_path / "top.parquet"
    asked = [*command[:2], "--dataset", str(tmp_path / "ours.toml"), "-N", "5", "--out", str(out)]
    for more, least in (([], 4), (["--min-value", "3"], 3)):
        assert main([*asked, *more]) == 0
        oracle.same(oracle.of_table(pq.read_table(out)), oracle.lists(model, ratings, 5, **RATINGS, min_value=least))


def test_an_input_in_which_nothing_is_liked_or_known_is_refused(command, tmp_path, capsys):
    assert main([*command, "--min-value", "40"]) == 2
    assert "at least one event with a value of more than 0 and at least 40, got none" in capsys.readouterr().err
    pd.DataFrame({"who": ["a"], "film": ["nothing of ours"], "stars": [5]}).to_csv(tmp_path / "ev.csv", index=False)
    assert main(command) == 2
    assert "Expected events on some of the" in capsys.readouterr().err


# parts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["events", "lists"])
@pytest.mark.parametrize("users", ["int32", "uint64", "large_string", "dictionary"])
def test_parts_are_masked_by_what_was_seen_besides(form, users, model, ratings, tmp_path, monkeypatch):
    """Lists and single events on either side; who is in seen alone stands among the others; ids as they are written."""
    pytest.importorskip("duckdb")
    from recvae.serving.batch import recommend_to_parquet

    monkeypatch.setattr("recvae.serving.batch.parts.BLOCK", 7)
    number = pl.col("who").str.slice(5).cast(pl.UInt64) + (2**63 if users == "uint64" else 0)
    frame = pl.from_arrow(ratings).select(number.alias("who"), "film")
    kind = {"dictionary": pa.dictionary(pa.int32(), pa.string())}.get(users) or pa.type_for_alias(users)
    views = {who: ["film 3", "film 4", "film ?"] for who in sorted(set(frame["who"]))[:9]}
    views |= {frame["who"].max() + 1: ["film 5"], frame["who"].max() + 2: []}
    seen = (
        views if form == "lists" else pd.DataFrame({"who": list(views), "film": list(views.values())}).explode("film")
    )
    if form == "lists":
        frame = frame.group_by("who").agg("film")
    else:
        seen = seen.dropna()
        views = {who: films for who, films in views.items() if films}
    table = frame.to_arrow()
    who = (
        table["who"].cast(pa.string()).cast(kind)
        if users in ("large_string", "dictionary")
        else table["who"].cast(kind)
    )
    pq.write_table(table.set_column(0, "who", who), tmp_path / "ev.parquet")
    names = {"user": "who", "item": "film", "show_progress": False, "users_per_part": 20}
    result = recommend_to_parquet(model, tmp_path / "ev.parquet", tmp_path / "out", 5, **names, seen=seen)
    found = pq.read_table(tmp_path / "out")
    assert result.users == 120 + len(views) - 9
    pairs = pl.from_arrow(ratings).select(number.alias("user"), pl.col("film").alias("item")).to_arrow()
    expected = oracle.lists(model, pairs, 5, seen=[(who, film) for who, films in views.items() for film in films])
    for who in views:  # who has touched nothing has a list too
        expected.setdefault(who, oracle.best(model, {}, (), 5))
    as_read = {int(user): lists for user, lists in oracle.of_table(found).items()}
    oracle.same({user: as_read[user] for user in expected}, expected)
    assert len(as_read) == len(expected)
    again = recommend_to_parquet(model, tmp_path / "ev.parquet", tmp_path / "out", 5, **names, seen=seen)
    assert again.made == 0


def test_users_that_are_no_users_of_the_events_are_refused(model, tmp_path):
    pytest.importorskip("duckdb")
    from recvae.serving.batch import recommend_to_parquet

    pq.write_table(pa.table({"user": [1, 2], "item": ["film 1", "film 2"]}), tmp_path / "ev.parquet")
    out = tmp_path / "out"
    for seen, error, words in (
        ({"ann": ["film 1"]}, InvalidDataError, "Expected users of seen as those of the events, int64, got string"),
        ([["film 1"]], InvalidTypeError, "Expected seen as a dict or a frame"),
        ({1: [2.5]}, InvalidTypeError, "all of one kind, got float"),
    ):
        with pytest.raises(error, match=words):
            recommend_to_parquet(model, tmp_path / "ev.parquet", out, 5, show_progress=False, seen=seen)
        assert not out.exists()


# what must not move --------------------------------------------------------------------------------------------------


def test_evaluation_keeps_the_papers_protocol():
    """Figures of before: what was rated low is among the candidates of a test, as in the papers."""
    data = make_sample(n_users=400, n_items=80).interactions
    cells = data.matrix.tocoo()
    stars = (cells.row * 7 + cells.col * 3) % 5 + 1
    frame = pa.table({"user": data.user_ids[cells.row], "item": data.item_ids[cells.col], "stars": stars})
    strong = Interactions.from_frame(frame, value="stars", min_value=3, min_user=5)
    split = recvae.strong_split(strong, heldout_users=60)
    found = recvae.evaluate(EASE(l2=20.0).fit(split.train), split.test, ["ndcg@10", "recall@5", "ndcg@100"])
    assert {name: metric.mean for name, metric in found.items()} == pytest.approx(
        {"ndcg@10": 0.4213354919674163, "recall@5": 0.4166666666666667, "ndcg@100": 0.521638267808136}, rel=1e-6
    )
    assert found.lists["novelty"] == pytest.approx(2.7112257930451107, rel=1e-6)


def test_a_folder_of_parts_that_was_begun_without_the_mask_is_refused(model, ratings, tmp_path):
    """Its lists would not go with those that are made now; without values nothing has changed."""
    pytest.importorskip("duckdb")
    from recvae.serving.batch import recommend_to_parquet

    pq.write_table(ratings, tmp_path / "ev.parquet")
    for name, columns, refused in (("old", RATINGS, True), ("plain", {"user": "who", "item": "film"}, False)):
        out = tmp_path / name
        recommend_to_parquet(model, tmp_path / "ev.parquet", out, 5, show_progress=False, **columns)
        manifest = json.loads((out / "_manifest.json").read_text())
        for setting in ("masked items", "items seen besides"):
            manifest["settings"].pop(setting)
        manifest.pop("sha256")  # as it was before there was one
        (out / "_manifest.json").write_text(json.dumps(manifest))
        if not refused:
            again = recommend_to_parquet(model, tmp_path / "ev.parquet", out, 5, show_progress=False, **columns)
            assert again.made == 0
            seen = {"seen": {"user 001": ["film 3"]}}
            with pytest.raises(InvalidParameterError, match="the items seen besides with which"):
                recommend_to_parquet(model, tmp_path / "ev.parquet", out, 5, show_progress=False, **columns, **seen)
            continue
        with pytest.raises(InvalidParameterError, match=r"the masked items with which .* all that a user has touched"):
            recommend_to_parquet(model, tmp_path / "ev.parquet", out, 5, show_progress=False, **columns)
