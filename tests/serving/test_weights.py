"""Behaviours and weights in histories: frames, model files, folders of lists, shards; all give the same."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import recvae
from recvae.data.histories import read_histories
from recvae.data.shards import write_shards
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.serving.batch import recommend_to_parquet

WEIGHTS = {"view": 0.5, "cart": 3, "buy": 5, "hover": 0}
OPTIONS = {"behavior": "event", "weights": WEIGHTS}


@pytest.fixture(scope="module")
def events():
    random = np.random.default_rng(0)
    n = 1500
    events = pd.DataFrame({"user": 60 * random.random(n) ** 2, "item": 40 * random.random(n) ** 2}).astype(int)
    events["event"] = random.choice(list(WEIGHTS), n)
    events["n"] = random.integers(1, 5, n).astype(float)
    return events


@pytest.fixture(scope="module")
def model(events):
    data = recvae.Interactions.from_frame(events, values="raw", **OPTIONS)
    return recvae.EASE(l2=50).fit(data)


@pytest.fixture(scope="module")
def parquet(events, tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "events.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pandas(events, preserve_index=False), path)
    return path


def test_the_model_file_keeps_what_was_done(model, tmp_path):
    model.save(tmp_path / "m.recvae")
    loaded = recvae.load(tmp_path / "m.recvae")
    assert loaded.preparation_ == {"behavior": "event", "weights": WEIGHTS, "unknown_behavior": "refuse"}
    loaded.save(tmp_path / "again.recvae")
    assert (tmp_path / "again.recvae").read_bytes() == (tmp_path / "m.recvae").read_bytes()


def test_a_model_of_a_matrix_has_no_preparation(events, tmp_path):
    data = recvae.Interactions.from_frame(events, min_user=3, k_core=True, duplicates="last")
    recvae.EASE().fit(data).save(tmp_path / "a")
    assert recvae.load(tmp_path / "a").preparation_ == {"min_user": 3, "k_core": True, "duplicates": "last"}
    recvae.EASE().fit(data.matrix).save(tmp_path / "b")
    assert recvae.load(tmp_path / "b").preparation_ == {}


@pytest.mark.parametrize("value", [None, "n"])
@pytest.mark.parametrize("min_value", [None, 2])
def test_histories_are_a_loop_over_the_rows(value, min_value, events):
    if value is None and min_value:
        return
    histories = read_histories(events, np.arange(40), value=value, min_value=min_value, **OPTIONS)
    liked, seen = np.zeros((60, 40)), np.zeros((60, 40), dtype=bool)
    for row in events.to_dict("records"):
        number = row[value] if value else 1
        weighed = number * WEIGHTS[row["event"]] if min_value is None or number >= min_value else 0
        liked[row["user"], row["item"]] += weighed
        seen[row["user"], row["item"]] = True
    assert histories.rows.toarray() == pytest.approx(liked)
    assert (histories.seen.toarray() > 0).tolist() == (seen & (liked == 0)).tolist()


def lists(table):
    return table.select(["user", "rank", "item", "score"]).to_pandas()


@pytest.mark.parametrize("options", [{}, {"value": "n"}, {"value": "n", "min_value": 2}])
def test_folders_have_the_lists_of_one_call(options, events, model, parquet, tmp_path):
    expected = model.recommend_for(events, 5, behavior="event", **options)
    result = recommend_to_parquet(
        model, parquet, tmp_path / "out", 5, behavior="event", users_per_part=25, show_progress=False, **options
    )
    assert result.parts == 3
    found = pd.concat(
        [lists(pyarrow.parquet.read_table(path)) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    )
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected[found.columns], check_dtype=False, rtol=1e-5)
    # given again, they are the same as those of training
    again = model.recommend_for(events, 5, **OPTIONS, **options)
    pd.testing.assert_frame_equal(again, expected)


def test_ray_reads_the_same_rows(events, parquet):
    from recvae.data.parquet.files import row_groups
    from recvae.data.parquet.source import find_source
    from recvae.data.weighting import Weighting
    from recvae.serving.batch.ray_data import _named, _reader

    source = find_source(parquet, "user", "item", "n", 2, Weighting("event", {"cart": 3, "buy": 5}, "drop"))
    rows = pa.concat_tables(list(_named(_reader(source), None, None)(row_groups(source.files)))).to_pandas()
    kept = events[events.event.isin(["cart", "buy"])]
    expected = np.where(kept.n < 2, 0, kept.n * kept.event.map({"cart": 3, "buy": 5}))
    assert rows.value.tolist() == expected.tolist()
    assert rows.user.tolist() == kept.user.tolist()


def test_behaviours_without_a_weight(events, model, parquet, tmp_path):
    weights = {"cart": 3, "buy": 5}
    with pytest.raises(InvalidDataError, match=r"'hover' in .* rows"):
        recommend_to_parquet(model, parquet, tmp_path / "a", behavior="event", weights=weights, show_progress=False)
    assert not (tmp_path / "a").exists()
    with pytest.raises(InvalidDataError, match="have a weight"):
        model.recommend_for(events, behavior="event", weights=weights)
    options = {"behavior": "event", "weights": weights, "unknown_behavior": "drop"}
    expected = model.recommend_for(events[events.event.isin(weights)], 3, behavior="event", weights=weights)
    pd.testing.assert_frame_equal(model.recommend_for(events, 3, **options), expected)
    recommend_to_parquet(model, parquet, tmp_path / "b", 3, show_progress=False, **options)
    found = lists(pyarrow.parquet.read_table(tmp_path / "b" / "part-00000.parquet"))
    pd.testing.assert_frame_equal(found, expected[found.columns], check_dtype=False, rtol=1e-5)


def test_a_folder_of_other_weights_is_not_resumed(model, parquet, tmp_path):
    recommend_to_parquet(model, parquet, tmp_path / "out", 3, show_progress=False, **OPTIONS)
    for other in ({}, OPTIONS | {"weights": WEIGHTS | {"view": 1}}):
        with pytest.raises(InvalidParameterError, match="begun"):
            recommend_to_parquet(model, parquet, tmp_path / "out", 3, show_progress=False, **other)


def test_models_without_weights_ask_for_them(events, parquet, tmp_path):
    model = recvae.EASE().fit(recvae.Interactions.from_frame(events))
    with pytest.raises(InvalidParameterError, match="weights"):
        model.recommend_for(events, behavior="event")
    with pytest.raises(InvalidParameterError, match="weights"):
        recommend_to_parquet(model, parquet, tmp_path / "out", behavior="event", show_progress=False)
    with pytest.raises(InvalidParameterError, match="frame only"):
        model.recommend_for({1: [2]}, behavior="event", weights=WEIGHTS)


@pytest.mark.parametrize("k_core", [False, True])
@pytest.mark.parametrize("options", [{}, {"value": "n", "min_value": 3}])
def test_shards_have_the_events_of_a_frame(options, k_core, events, parquet, tmp_path):
    rare = {"min_user": 4, "min_item": 5, "k_core": k_core} | options
    weights = {"behavior": "event", "weights": WEIGHTS | {"view": 0}}
    data = recvae.Interactions.from_frame(events, values="raw", **weights, **rare)
    shards = write_shards(parquet, tmp_path / "shards", values="raw", show_progress=False, **weights, **rare)
    assert shards.item_ids.tolist() == data.item_ids.tolist()
    assert shards.user_ids.to_pylist() == data.user_ids.tolist()
    assert (shards.rows(0, shards.n_users) != data.matrix).nnz == 0
    assert shards.fingerprint() == data.fingerprint()
    assert data.n_users < 60 or data.n_items < 40
    for other in (rare, weights | rare | {"k_core": not k_core}):
        with pytest.raises(InvalidParameterError, match="begun"):
            write_shards(parquet, tmp_path / "shards", values="raw", show_progress=False, **other)
