"""Lists of closed-form models from their files, without torch: those of the models themselves."""

import json

import numpy as np
import pytest
from scipy import sparse

import recvae
from recvae import EASE, EDLAE, Interactions, MultVAE, load
from recvae.data.ids import id_array
from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.models.base.model_file import read_model, write_model
from recvae.serving import linear
from recvae.serving.linear import open_linear
from tests.cli.test_startup import RUN, loaded

I = 40  # noqa: E741


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    dense = (random.random((60, I)) < 0.2) * random.integers(1, 6, (60, I))
    ids = id_array([f"item {item}" for item in range(I)], "item_ids")
    return Interactions(sparse.csr_matrix(dense.astype(np.float32)), np.arange(60), ids, titles=ids, values="raw")


def saved(tmp_path, data, model):
    model.fit(data).save(tmp_path / "a.recvae")
    return model, open_linear(tmp_path / "a.recvae")


@pytest.mark.parametrize(
    "make",
    [
        EASE,
        lambda: EASE(l2=5.0, form="sparse", neighbours=7),
        lambda: EDLAE(values="log1p"),
        lambda: EASE(values="binary"),
    ],
    ids=["dense", "sparse", "log1p", "binary"],
)
@pytest.mark.parametrize("N", [7, 50])
def test_lists_are_those_of_the_model(make, N, data, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "BLOCK_BYTES", 4 * I * 7)  # several blocks, the last one shorter
    model, lists = saved(tmp_path, data, make())
    rows = sparse.csr_matrix(data.matrix[:33])
    rows = sparse.vstack(
        [rows, sparse.csr_matrix((1, I), dtype=np.float32)], format="csr"
    )  # and someone without events
    users = np.arange(34)
    assert lists.known_items().positions(["item 3", "none"]).tolist() == [3, -1]
    for seen in (None, sparse.csr_matrix(data.matrix[26:60])):
        expected, got = (one.ranked_table(users, rows, N, seen=seen).to_pydict() for one in (model, lists))
        assert {name: got[name] for name in ("user", "rank", "item", "title")} == {
            name: expected[name] for name in ("user", "rank", "item", "title")
        }
        np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-5, atol=1e-6)


def test_equal_scores_go_to_the_lower_id_first():
    lists = linear.LinearLists(np.zeros((I, I), dtype=np.float32), "binary", np.arange(I), None)
    rows = sparse.csr_matrix(([1.0], ([0], [1])), shape=(1, I), dtype=np.float32)
    assert lists.ranked_table(np.arange(1), rows, 3)["item"].to_pylist() == [0, 2, 3]


def test_other_models_and_models_without_ids_are_left_to_load(data, tmp_path):
    assert saved(tmp_path, data, MultVAE(epochs=1, hidden_dims=(4,), latent_dim=2, random_state=0))[1] is None
    assert saved(tmp_path, data.matrix, EASE())[1] is None
    assert open_linear(tmp_path / "none.recvae") is None


def test_damaged_files_are_left_to_load(data, tmp_path):
    path = tmp_path / "a.recvae"
    EASE(form="sparse", neighbours=5).fit(data).save(path)
    content = path.read_bytes()
    for broken in (content[:-3], content[:-3] + b"abc", content[:20], b""):
        path.write_bytes(broken)
        assert open_linear(path) is None
        with pytest.raises(InvalidDataError):
            load(path)


@pytest.mark.parametrize("change", [{"n_items": I + 1}, {"item_ids": ["a"] * I}, {"titles": ["a"]}, {"values": "cube"}])
def test_claims_that_do_not_fit_are_left_to_load(change, data, tmp_path):
    path = tmp_path / "a.recvae"
    EASE().fit(data).save(path)
    tensors, description = read_model(path)
    write_model(path, tensors, description | change)  # its checksum is right
    assert open_linear(path) is None
    with pytest.raises(InvalidDataError):
        load(path)


def test_indices_out_of_range_are_left_to_load(data, tmp_path):
    path = tmp_path / "a.recvae"
    EASE(form="sparse", neighbours=5).fit(data).save(path)
    tensors, description = read_model(path)
    tensors["indices"][0] = I
    write_model(path, tensors, description)
    assert open_linear(path) is None
    with pytest.raises(InvalidDataError):
        load(path)


def test_rows_are_checked(data, tmp_path):
    _, lists = saved(tmp_path, data, EASE())
    with pytest.raises(InvalidTypeError, match="CSR"):
        lists.ranked_table(np.arange(2), np.zeros((2, I)), 3)


def test_weights_whose_sums_overflow_are_named():
    weights = np.full((I, I), 3e38, dtype=np.float32)
    lists = linear.LinearLists(weights, "binary", np.arange(I), None)
    with pytest.raises(InvalidDataError, match="scores that are finite"), np.errstate(over="ignore"):
        lists.ranked_table(np.arange(1), sparse.csr_matrix(np.ones((1, I), dtype=np.float32)), 3)


def test_the_command_loads_no_torch(data, tmp_path):
    EASE().fit(data).save(tmp_path / "a.recvae")
    (tmp_path / "a.csv").write_text("user,item\n1,item 3\n1,item 9\n2,item 5\n")
    arguments = (str(tmp_path / "a.recvae"), "--input", str(tmp_path / "a.csv"), "-N", "4", "--json")
    modules, out = loaded(RUN, "recommend", *arguments)
    assert not modules & {"torch", "polars", "duckdb", "implicit", "rich", "pooch"}
    lines = [json.loads(line) for line in out.splitlines()]
    model = recvae.load(tmp_path / "a.recvae")
    expected = model.recommend_for({1: ["item 3", "item 9"], 2: ["item 5"]}, N=4).to_pydict()
    assert [line["item"] for line in lines] == expected["item"]
