"""What is exported ranks as the model does: by onnxruntime, by numpy, and by inner products."""

import functools
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy import sparse

import recvae
from recvae import EASE, HVamp, HybridVAE, Interactions, MultDAE, MultVAE, OutputOptions, RecVAE, TrainingOptions
from recvae.errors import (
    InvalidTypeError,
    MissingDependencyError,
    NotFittedError,
    NotSupportedError,
    OutputError,
    RecvaeError,
)
from recvae.models.baselines import ALS, Popularity
from recvae.serving.export import export_numpy, export_onnx, item_vectors, numpy_scorer, onnx_file, user_vectors

SMALL = {"latent_dim": 8, "epochs": 2, "batch_size": 70, "random_state": 0}
HYBRID = {"hidden_dim": 16, "depth": 2, "l2": 10.0, **SMALL}
MODELS = {
    "MultVAE": MultVAE(hidden_dims=(16,), **SMALL),
    "MultVAE-shallow": MultVAE(hidden_dims=(), values="raw", **SMALL),
    "MultVAE-cosine": MultVAE(hidden_dims=(16, 12), **SMALL, output=OutputOptions(logits="cosine")),
    "MultVAE-tied": MultVAE(hidden_dims=(16,), **SMALL, output=OutputOptions(tied_embeddings=True)),
    "MultDAE-sampled-tied": MultDAE(
        **SMALL, output=OutputOptions(tied_embeddings=True), training=TrainingOptions(impl="sampled", num_negatives=30)
    ),
    "HybridVAE-sampled-tied": HybridVAE(
        hidden_dim=8,
        depth=2,
        l2=10.0,
        **SMALL,
        output=OutputOptions(tied_embeddings=True),
        training=TrainingOptions(impl="sampled", num_negatives=30),
    ),
    "MultVAE-logistic": MultVAE(hidden_dims=(16,), likelihood="logistic", values="log1p", **SMALL),
    "MultVAE-gaussian": MultVAE(hidden_dims=(16,), likelihood="gaussian", **SMALL),
    "MultDAE": MultDAE(hidden_dims=(16,), values="log1p", **SMALL),
    "RecVAE": RecVAE(hidden_dim=16, depth=3, **SMALL),
    "HVamp": HVamp(hidden_dims=(16, 12), n_components=5, **SMALL),
    "HybridVAE": HybridVAE(values="raw", **HYBRID),
    "HybridVAE-sparse": HybridVAE(form="sparse", neighbours=20, **HYBRID),
    "HybridVAE-sparse-log1p": HybridVAE(form="sparse", neighbours=20, values="log1p", **HYBRID),
}
ALL = 90  # more than there are items


@pytest.fixture(scope="module")
def fitted_models(split):
    return {name: model.fit(split.train, show_progress=False) for name, model in MODELS.items()}


@pytest.fixture(params=MODELS)
def model(request, fitted_models):
    return fitted_models[request.param]


@pytest.fixture(scope="module")
def exported():
    """What a model is in an engine, made once."""
    return functools.cache(lambda engine, model: engine(model))


@pytest.fixture(scope="module")
def rows(split):
    """Test users, with values; one who has nothing, one who has all, and two more with nothing at the end."""
    some = split.test.fold_in.copy()
    some.data = np.random.default_rng(0).integers(1, 9, some.nnz).astype(np.float32)
    n_items = some.shape[1]
    parts = [
        some[:3],
        sparse.csr_matrix((1, n_items)),
        some[3:],
        np.ones((1, n_items)),
        sparse.csr_matrix((2, n_items)),
    ]
    return sparse.vstack(parts, format="csr", dtype=np.float32)


class Onnx:
    """An exported model in onnxruntime."""

    def __init__(self, model):
        file = io.BytesIO()
        export_onnx(model, file)
        self.content = file.getvalue()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2  # where some kernels lose sums
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(self.content, options)

    def recommend(self, histories, N):
        items, offsets, values = histories
        feed = {"items": np.asarray(items, np.int64), "offsets": np.asarray(offsets, np.int64), "values": values}
        wanted = {one.name for one in self.session.get_inputs()}
        return self.session.run(None, {name: x for name, x in feed.items() if name in wanted} | {"N": np.array(N)})


class Numpy:
    """An exported model read back by the scorer."""

    def __init__(self, model):
        file = io.BytesIO()
        export_numpy(model, file)
        self.content = file.getvalue()
        file.seek(0)
        self.recommend = numpy_scorer.load(file).recommend


def parts_of(rows):
    return rows.indices, rows.indptr, rows.data


def by_item(ids, scores, n_items):
    """Lists as scores of items, NaN of those that are not in them. -> (B, I)"""
    table = np.full((len(ids), n_items), np.nan)
    users, places = (ids >= 0).nonzero()
    table[users, ids[users, places]] = scores[users, places]
    return table


# files that score ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_each_item_has_the_score_of_the_model(engine, model, rows, exported):
    ids, scores = exported(engine, model).recommend(parts_of(rows), ALL)
    assert ids.shape == scores.shape == (rows.shape[0], ALL)
    assert scores.dtype == np.float32
    expected = by_item(*model.recommend(np.arange(rows.shape[0]), rows, N=ALL), model.n_items_)
    np.testing.assert_allclose(by_item(ids, scores, model.n_items_), expected, rtol=1e-5, atol=1e-5)
    for user in range(rows.shape[0]):  # best first, equal scores by id, padded at the end
        n_left = model.n_items_ - rows[user].nnz
        assert (np.lexsort((ids[user, :n_left], -scores[user, :n_left])) == np.arange(n_left)).all()
        assert (ids[user, n_left:] == -1).all()
        assert (scores[user, n_left:] == np.finfo(np.float32).min).all()


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_shorter_lists_and_fewer_users_are_parts_of_it(engine, model, rows, exported):
    recommend = exported(engine, model).recommend
    ids, scores = recommend(parts_of(rows), ALL)
    short, _ = recommend(parts_of(rows), 7)
    assert (short == ids[:, :7]).all()
    for user in (0, 3):  # with events and without
        one, one_scores = recommend(parts_of(rows[user]), ALL)
        assert one.shape == (1, ALL)
        np.testing.assert_allclose(one_scores, scores[[user]], rtol=1e-5, atol=1e-5)
    nobody, _ = recommend(parts_of(rows[:0]), 7)
    assert nobody.shape == (0, 7)


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_equal_scores_are_in_the_order_of_ids(engine, split, rows):
    model = MultVAE(hidden_dims=(16,), **SMALL).fit(split.train, show_progress=False)
    with torch.no_grad():
        model.network_.decoder.weight.zero_()
        model.network_.decoder.bias.copy_(torch.arange(80) % 2)
    ids, _ = engine(model).recommend(parts_of(rows), 50)
    assert (ids == model.recommend(np.arange(rows.shape[0]), rows, N=50)[0]).all()


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_small_and_large_values_are_read_as_in_the_model(engine, fitted_models, exported):
    model = fitted_models["MultDAE"]
    assert model.values_ == "log1p"
    values = np.array([1e-12, 1e-7, 3e-4, 1, 1e12, 2e-8, 3e-8], np.float32)
    events = sparse.csr_matrix((values, [1, 2, 5, 6, 9, 1, 2], [0, 5, 7]), shape=(2, 80))
    ids, scores = exported(engine, model).recommend(parts_of(events), ALL)
    expected = by_item(*model.recommend([0, 1], events, N=ALL), 80)
    np.testing.assert_allclose(by_item(ids, scores, 80), expected, rtol=1e-4, atol=1e-5)


def test_an_onnx_file_is_valid_and_says_what_it_is(model, split, exported):
    content = exported(Onnx, model).content
    onnx.checker.check_model(content, full_check=True)
    about = json.loads({one.key: one.value for one in onnx.load_from_string(content).metadata_props}["recvae"])
    assert about == {
        "class": type(model).__name__,
        "version": recvae.__version__,
        "n_items": 80,
        "values": model.values_,
        "item_ids": split.items.tolist(),
    }


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_files_hold_no_code_and_no_paths(engine, model, exported):
    content = exported(engine, model).content
    assert b".py" not in content.replace(b".npy", b"")
    assert str(Path(recvae.__file__).parent).encode() not in content
    if engine is Numpy:
        assert np.load(io.BytesIO(content), allow_pickle=False)["last.weight"].shape[0] == 80


@pytest.mark.parametrize(
    ("items", "offsets"), [([80], [0, 1]), ([-1], [0, 1]), ([3, 4], [0, 1]), ([3], [0, 2])], ids=str
)
@pytest.mark.parametrize("name", ["MultVAE", "HybridVAE-sparse"])
def test_an_onnx_runtime_refuses_what_the_model_does_not_have(name, items, offsets, fitted_models, exported):
    """Columns out of range, events of nobody, and users whose events are not there."""
    with pytest.raises(Exception, match=r"out of .*bounds|invalid indice"):
        exported(Onnx, fitted_models[name]).recommend((items, offsets, None), 5)


@pytest.mark.parametrize("ids", [[1, 2, 2**63 + 5], ["007", "7", "Ünï"], None])
def test_raw_ids_travel_along(ids, tmp_path):
    ones = sparse.csr_matrix(np.ones((3, 3)))
    model = MultDAE(**SMALL).fit(ones if ids is None else Interactions.from_matrix(ones, item_ids=ids))
    export_onnx(model, tmp_path / "model.onnx")
    assert json.loads(onnx.load(tmp_path / "model.onnx").metadata_props[0].value)["item_ids"] == ids
    export_numpy(model, tmp_path / "model.npz")
    found = numpy_scorer.load(tmp_path / "model.npz").item_ids
    assert found is None if ids is None else found.tolist() == ids


def test_a_loaded_model_is_exported_as_well(fitted_models, rows, tmp_path):
    model = fitted_models["HybridVAE-sparse"]
    model.save(tmp_path / "model")
    again = recvae.load(tmp_path / "model")
    assert Onnx(again).content == Onnx(model).content
    assert Numpy(again).content == Numpy(model).content


@pytest.mark.parametrize("engine", [Onnx, Numpy])
def test_the_model_stays_as_it_is(engine, split, rows):
    model = RecVAE(hidden_dim=16, depth=2, **SMALL).fit(split.train, show_progress=False)
    before = model.recommend([0], rows[[0]])
    with torch.no_grad():  # in which torch takes other operators
        engine(model)
    assert all(parameter.requires_grad for parameter in model.network_.parameters())
    assert all((one == other).all() for one, other in zip(model.recommend([0], rows[[0]]), before, strict=True))
    model.fit(split.train, show_progress=False)


# vectors -------------------------------------------------------------------------------------------------------------


def test_inner_products_of_vectors_are_scores(model, rows):
    if isinstance(model, HybridVAE):
        for vectors in (item_vectors, lambda model: user_vectors(model, rows)):
            with pytest.raises(NotSupportedError, match="HybridVAE has no vectors: its linear path has full rank"):
                vectors(model)
        return
    items, users = item_vectors(model), user_vectors(model, rows)
    assert items.dtype == users.dtype == np.float32
    assert (users[:, -1] == 1).all()
    ids, scores = model.recommend(np.arange(rows.shape[0]), rows, N=80, filter_already_liked_items=False)
    np.testing.assert_allclose(users @ items.T, by_item(ids, scores, 80), rtol=1e-5, atol=1e-5)


def test_rows_of_vectors_are_checked(fitted_models, rows):
    with pytest.raises(RecvaeError, match="Expected 80 columns"):
        user_vectors(fitted_models["MultVAE"], rows[:, :79])


# refusals ------------------------------------------------------------------------------------------------------------

WAYS = {
    "onnx": lambda model: export_onnx(model, io.BytesIO()),
    "numpy": lambda model: export_numpy(model, io.BytesIO()),
    "items": item_vectors,
    "users": lambda model: user_vectors(model, sparse.csr_matrix((1, 80))),
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_before_fit_there_is_only_an_error(way):
    with pytest.raises(NotFittedError, match="Expected a fitted RecVAE; call fit first"):
        way(RecVAE())


@pytest.mark.parametrize("foreign", [EASE(), ALS(factors=3), Popularity()], ids=lambda one: type(one).__name__)
def test_models_without_a_network_are_refused_by_name(way, foreign, split):
    foreign.fit(split.train, show_progress=False)
    with pytest.raises(NotSupportedError, match=f"{type(foreign).__name__} has no network to export"):
        way(foreign)
    with pytest.raises(InvalidTypeError, match="a model of recvae, got Linear"):
        way(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("way", [WAYS[name] for name in ("onnx", "numpy", "items")])
def test_a_class_that_ranks_otherwise_is_refused(way, split):
    class Contrary(MultDAE):
        def recommend(self, *args, **more):
            ids, scores = super().recommend(*args, **more)
            return ids, -scores

    model = Contrary(**SMALL).fit(split.train, show_progress=False)
    del recvae.Recommender.registry["Contrary"]
    with pytest.raises(NotSupportedError, match="Contrary scores otherwise than its network"):
        way(model)


@pytest.mark.parametrize("way", [WAYS[name] for name in ("onnx", "numpy")])
def test_a_network_with_a_step_of_its_own_is_refused(way, split):
    class Angular(MultDAE):
        def _network(self, n_items):
            network = super()._network(n_items)
            network.decoder.activation = torch.relu
            return network

    model = Angular(hidden_dims=(8,), **SMALL).fit(split.train, show_progress=False)
    del recvae.Recommender.registry["Angular"]
    with pytest.raises(NotSupportedError, match=r"a step that cannot be exported: .*relu"):
        way(model)


def test_without_onnx_there_is_a_sentence(fitted_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "recvae\[onnx\]"'):
        export_onnx(fitted_models["MultVAE"], io.BytesIO())


def test_an_onnx_file_has_a_largest_size(fitted_models, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(NotSupportedError, match="less than 2 GiB, the most that an ONNX file can hold"):
        export_onnx(fitted_models["MultVAE"], io.BytesIO())


@pytest.mark.parametrize("export", [export_onnx, export_numpy])
def test_files_are_whole_or_not_there(export, fitted_models, tmp_path):
    model = fitted_models["MultVAE"]
    with pytest.raises(InvalidTypeError, match="path or an open binary file"):
        export(model, 3)
    with pytest.raises(OutputError):
        export(model, tmp_path)
    export(model, tmp_path / "new" / "model")
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["model"]


def test_the_ways_of_the_guide_agree(briefly):
    guide = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    namespace: dict = {}
    for snippet in re.findall(r"```python\n(.*?)```", guide, re.DOTALL):
        exec(snippet, namespace)
    lists = [namespace[name] for name in ("ids", "onnx_ids", "numpy_ids", "index_ids")]
    assert all((one[:, :5] == lists[0][:, :5]).all() for one in lists)
