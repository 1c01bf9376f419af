"""Raw ids in, raw ids out."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from recvae import EASE, Interactions, MultVAE
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, NotFittedError, UnknownUsersError
from recvae.models.base import UnknownItemsWarning
from recvae.models.baselines import BPR


@pytest.fixture(scope="module")
def data(checkerboard):
    names = [f"i{n}" for n in range(50)]
    return Interactions.from_matrix(checkerboard, item_ids=names, titles={name: f"Item {name}" for name in names})


@pytest.fixture(scope="module")
def model(data):
    return EASE(l2=1.0).fit(data)


def test_lists_of_raw_ids_give_a_table_of_raw_ids(model):
    table = model.recommend_for([["i1", "i3", "i5"], ["i2"]], N=4)
    assert table.column_names == ["user", "rank", "item", "score", "title"]
    rows = table.to_pylist()
    assert [(row["user"], row["rank"]) for row in rows] == [(u, r) for u in (0, 1) for r in (1, 2, 3, 4)]
    assert all(int(row["item"][1:]) % 2 == (row["user"] == 0) for row in rows)
    assert all(row["title"] == f"Item {row['item']}" for row in rows)
    wanted = sparse.csr_matrix(([1.0] * 4, ([0, 0, 0, 1], [1, 3, 5, 2])), shape=(2, 50))
    ids, scores = model.recommend([0, 1], wanted, N=4)
    assert [row["item"] for row in rows] == [f"i{n}" for n in ids.ravel()]
    np.testing.assert_allclose([row["score"] for row in rows], scores.ravel())


@pytest.mark.parametrize(
    ("make", "kind"), [(pd.DataFrame, pd.DataFrame), (pl.DataFrame, pl.DataFrame), (pa.table, pa.Table)]
)
def test_a_frame_gives_a_frame_of_its_kind(model, make, kind):
    found = model.recommend_for(
        make({"who": ["ann", "bob", "ann"], "what": ["i1", "i2", "i3"]}), 2, user="who", item="what"
    )
    assert isinstance(found, kind)
    assert list(pa.table(found)["user"].to_pylist()) == ["ann", "ann", "bob", "bob"]


def test_a_dict_names_the_users(model):
    table = model.recommend_for({"zoe": ["i1"], "ann": []}, N=1)
    assert table["user"].to_pylist() == ["zoe", "ann"]


def test_unknown_items_are_counted_and_left_out(model):
    with pytest.warns(UnknownItemsWarning, match="items that the model does not know") as said:
        table = model.recommend_for([["i1", "x", "y"]], N=3)
    assert str(said[0].message.unknown).startswith("2 events are on items that the model does not know, such as 'x'")
    assert said[0].filename == __file__
    assert table.equals(model.recommend_for([["i1"]], N=3))


def test_lists_in_raw_ids_for_business_rules(model):
    assert model.recommend_for([["i1"]], items=["i7", "i9", "?"])["item"].to_pylist() in (["i7", "i9"], ["i9", "i7"])
    assert "i7" not in model.recommend_for([["i1"]], N=50, filter_items=["i7", "?"])["item"].to_pylist()
    assert "i1" in model.recommend_for([["i1"]], N=50, filter_already_liked_items=False)["item"].to_pylist()
    with pytest.raises(InvalidParameterError, match="of which the model knows at least one"):
        model.recommend_for([["i1"]], items=["?"])


def test_what_is_refused(model, checkerboard, data):
    with pytest.raises(InvalidDataError, match="trained on a bare matrix; fit it on Interactions"):
        EASE().fit(checkerboard).recommend_for([["i1"]])
    with pytest.raises(NotFittedError):
        EASE().recommend_for([["i1"]])
    with pytest.raises(InvalidTypeError):
        model.recommend_for("i1")
    with pytest.raises(InvalidTypeError):
        model.recommend_for(["i1"])
    with pytest.raises(InvalidParameterError):
        model.recommend_for([["i1"]], N=0)
    with pytest.raises(UnknownUsersError):
        BPR(factors=4, random_state=0).fit(data).recommend_for([["i1"]])


def test_nobody_and_nothing(model):
    for nobody in ([], {}, pd.DataFrame({"user": [], "item": []}), pl.DataFrame({"user": [], "item": []})):
        assert len(model.recommend_for(nobody)) == 0
    stranger = model.recommend_for(pd.DataFrame({"user": [1], "item": [[]]}), N=2)
    assert stranger["item"].tolist() == model.recommend_for({1: []}, N=2)["item"].to_pylist()


def test_all_that_there_is(model):
    assert len(model.recommend_for([["i1"]], N=10**13)) == 49


def test_ids_beyond_what_a_signed_number_holds(checkerboard):
    data = Interactions.from_matrix(checkerboard, item_ids=[*range(1, 50), 2**63])
    assert 2**63 in EASE(l2=1.0).fit(data).recommend_for([[1]], N=49)["item"].to_pylist()


def test_another_fit_knows_other_items(data, checkerboard):
    model = MultVAE(latent_dim=4, hidden_dims=(8,), epochs=1).fit(data)
    model.recommend_for([["i1"]])
    model.fit(Interactions.from_matrix(checkerboard, item_ids=list(range(100, 150))))
    assert min(model.recommend_for([[101]], N=3)["item"].to_pylist()) >= 100
