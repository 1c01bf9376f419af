import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse

import recvae
from recvae import EASE, HVamp, Interactions, MultDAE, MultVAE, OutputOptions, Recommender, TrainingOptions, load
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    OutputError,
)
from recvae.models.base.model_file import content_checksum
from recvae.models.base.params import get_params
from recvae.models.baselines import ALS, GFCF, SLIM, ItemKNN, Popularity, RP3beta

ONES = sparse.csr_matrix(np.ones((3, 3)))
MODELS = {
    "MultVAE": MultVAE(
        latent_dim=4, hidden_dims=(8, 6), epochs=np.int64(2), batch_size=70, kl_cap=np.float32(0.5), random_state=0
    ),
    "MultVAE-cosine": MultVAE(
        latent_dim=4, epochs=2, batch_size=70, random_state=0, output=OutputOptions(logits="cosine", temperature=0.2)
    ),
    "MultVAE-tied": MultVAE(
        latent_dim=4,
        hidden_dims=(8,),
        epochs=2,
        batch_size=70,
        random_state=0,
        output=OutputOptions(tied_embeddings=True),
    ),
    "MultDAE-sampled-tied": MultDAE(
        latent_dim=4,
        epochs=2,
        batch_size=70,
        random_state=0,
        output=OutputOptions(tied_embeddings=True),
        training=TrainingOptions(impl="sampled", num_negatives=20, sampler="in-batch"),
    ),
    "HVamp": HVamp(
        latent_dim=4, hidden_dims=(8, 6), n_components=3, epochs=2, batch_size=70, likelihood="logistic", random_state=0
    ),
    "MultDAE": MultDAE(latent_dim=4, epochs=2, batch_size=70, random_state=0, values="log1p"),
    "ALS": ALS(factors=4, random_state=0),
    "ItemKNN": ItemKNN(weighting="bm25", K=7),
    "RP3beta": RP3beta(K=7, normalize=False),
    "GFCF": GFCF(k=7),
    "SLIM": SLIM(neighbours=7),
    "Popularity": Popularity(),
}


@pytest.fixture(params=MODELS, scope="module")
def fitted(request, split):
    return MODELS[request.param].fit(split.train)


@pytest.fixture
def file(split, tmp_path):
    path = tmp_path / "model.recvae"
    MultVAE(latent_dim=4, hidden_dims=(8,), epochs=1, random_state=0).fit(split.train).save(path)
    return path


def test_a_loaded_model_is_the_model(fitted, split, tmp_path):
    path = tmp_path / "new" / "model.recvae"
    fitted.save(path)
    again = load(path)
    assert type(again) is type(fitted)
    assert get_params(again) == get_params(fitted)
    assert again.values_ == fitted.values_
    assert again.item_ids_.tolist() == split.items.tolist()
    assert again.titles_.tolist() == split.train.titles.tolist()
    rows = split.test.fold_in
    for one, other in zip(
        again.recommend(np.arange(rows.shape[0]), rows, N=20),
        fitted.recommend(np.arange(rows.shape[0]), rows, N=20),
        strict=True,
    ):
        assert (one == other).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["model.recvae"]
    again.save(path)  # and can be saved, and fitted, again
    assert load(path).fit(split.train).n_items_ == len(split.items)


def test_another_process_recommends_the_same(split, tmp_path):
    model = MultVAE(latent_dim=4, epochs=2, random_state=0).fit(split.train)
    model.save(tmp_path / "model.recvae")
    sparse.save_npz(tmp_path / "rows.npz", split.test.fold_in)
    code = """
import numpy, scipy.sparse, recvae
rows = scipy.sparse.load_npz("rows.npz")
ids, scores = recvae.load("model.recvae").recommend(numpy.arange(rows.shape[0]), rows)
numpy.savez("answer.npz", ids=ids, scores=scores)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    answer = np.load(tmp_path / "answer.npz")
    ids, scores = model.recommend(np.arange(len(split.test.users)), split.test.fold_in)
    assert (answer["ids"] == ids).all()
    np.testing.assert_allclose(answer["scores"], scores, rtol=1e-5)


def test_file_objects_serve_as_well(fitted, checkerboard):
    stream = io.BytesIO()
    fitted.save(stream)
    stream.seek(0)
    assert type(load(stream)) is type(fitted)


@pytest.mark.parametrize("ids", [[-(2**62), 7, 2**62], [1, 2, 2**63 + 5], ["Ünï", "a b", "東京"], ["007", "7", "07"]])
def test_ids_of_each_kind_survive(ids, tmp_path):
    data = Interactions.from_matrix(ONES, item_ids=ids)
    Popularity().fit(data).save(tmp_path / "model")
    again = load(tmp_path / "model").item_ids_
    assert again.tolist() == ids
    assert [type(one) for one in again.tolist()] == [type(one) for one in ids]


def test_a_matrix_has_no_ids_to_save(checkerboard, tmp_path):
    Popularity().fit(checkerboard).save(tmp_path / "model")
    assert load(tmp_path / "model").item_ids_ is None
    assert load(tmp_path / "model").titles_ is None


def write_models(file):
    """Files of several models, one after the other."""
    rows = sparse.random(30, 12, 0.4, "csr", random_state=0)
    network = MultVAE(epochs=1, latent_dim=2, random_state=0)
    for model in (
        EASE(l2=3),
        EASE(form="sparse", neighbours=3),
        ItemKNN(K=99),
        RP3beta(),
        GFCF(),
        SLIM(),
        Popularity(),
        network,
    ):
        model.fit(rows, show_progress=False).save(file)


def test_equal_models_have_equal_files():
    """The library safetensors orders its header by a hash that is another in each process."""
    code = "import sys; from tests.models.test_saving import write_models; write_models(sys.stdout.buffer)"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    write_models(here := io.BytesIO())
    assert subprocess.run(command, check=True, capture_output=True, cwd=root, timeout=200).stdout == here.getvalue()


def test_numbers_of_one_value_are_one_in_a_file():
    files = [io.BytesIO(), io.BytesIO()]
    for file, l2 in zip(files, (3, np.float32(3.0)), strict=True):
        EASE(l2=l2).fit(ONES).save(file)
    one, other = (file.getvalue() for file in files)
    assert one == other
    assert content_checksum(one) == content_checksum(other)


def test_the_library_of_the_format_reads_the_files(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    tensors = safetensors.torch.load_file(tmp_path / "model")
    assert tensors.keys() == fitted._tensors().keys()
    for name, tensor in fitted._tensors().items():
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_would_not_be_read_again_is_not_written(number, tmp_path):
    model = EASE(l2=1.0).fit(ONES)
    model.weights_[0, 1] = number
    with pytest.raises(InvalidDataError, match="Expected finite numbers as weights"):
        model.save(tmp_path / "model")
    model.weights_ = torch.ones(3, 3, dtype=torch.bfloat16)
    with pytest.raises(InvalidDataError, match=r"Expected weights of one of the types F64, .*, got bfloat16"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# files of before -----------------------------------------------------------------------------------------------------

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*.recvae"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_files_of_the_first_format_give_the_scores_that_they_gave(path):
    expected = json.loads((path.parent / "scores.json").read_text())[path.stem]
    model = load(path)
    assert model.item_ids_.tolist() == [f"item {n}" for n in range(8)]
    assert model.titles_[3] == "ITEM 3"
    row = sparse.csr_matrix(([1.0] * 3, ([0] * 3, [2, 4, 6])), shape=(1, 8))  # user 0 of those that it was fitted on
    scores = model.score(row, userid=0 if path.stem in ("BPR", "LMF") else None)[0]
    known = [n for n in range(8) if expected[n] is not None]
    np.testing.assert_allclose(scores[known], [expected[n] for n in known], rtol=1e-4, atol=1e-5)
    assert (np.delete(scores, known) == np.finfo(np.float32).min).all()


def test_there_is_a_file_of_each_model():
    kinds = {path.stem.partition("-")[0] for path in FIXTURES}
    ours = {name: kind for name, kind in Recommender.registry.items() if kind.__module__.startswith("recvae.")}
    assert kinds == {name for name, kind in ours.items() if not inspect.isabstract(kind)}


def test_the_kl_cap_that_was_found_is_in_the_file(split, tmp_path):
    small = {"latent_dim": 4, "hidden_dims": (8,), "epochs": 3, "random_state": 0}
    for model in (MultVAE(kl_cap=None, **small), HVamp(kl_cap=0.3, n_components=3, **small)):
        model.fit(split.train, valid=split.valid).save(tmp_path / "model")
        assert load(tmp_path / "model").kl_cap_ == model.kl_cap_
    files = {path.stem: load(path) for path in FIXTURES if path.stem.startswith("MultVAE")}
    assert files["MultVAE"].kl_cap_ == 0.2  # as it was given
    found = files["MultVAE-cap"]  # what was found was not kept
    assert not hasattr(found, "kl_cap_")
    row = sparse.csr_matrix(np.ones((1, 8)))
    with pytest.raises(NotFittedError, match=r"the kl_cap that was found, which the file lacks; set_params\(kl_cap"):
        found.partial_fit(row)
    found.set_params(kl_cap=0.1).partial_fit(row).save(tmp_path / "model")


def test_the_device_is_a_matter_of_loading(tmp_path):
    for name in ("MultVAE", "HybridVAE", "EASE"):
        path = next(path for path in FIXTURES if path.stem == name)
        assert type(load(path, device="cpu")).__name__ == name
        assert type(Recommender.load(path, device="cpu")).__name__ == name
        for nowhere in ("cuda:99", "no such", 3.5):
            with pytest.raises(InvalidParameterError, match="Expected a device that is here"):
                load(path, device=nowhere)


def test_only_paths_and_open_binary_files_are_files(file, split, tmp_path):
    model = load(file)
    for thing in (None, 3, b"bytes"):
        with pytest.raises(InvalidTypeError, match="path or an open binary file"):
            model.save(thing)
        with pytest.raises(InvalidTypeError, match="path or an open binary file"):
            load(thing)
    with pytest.raises(DataNotFoundError):
        load(tmp_path)


def test_where_there_is_no_file_and_no_model(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"Expected a model file at .*nowhere, got: No such file"):
        load(tmp_path / "nowhere")
    with pytest.raises(NotFittedError):
        MultVAE().save(tmp_path / "model")
    with pytest.raises(OutputError):
        MODELS["Popularity"].fit(Interactions.from_matrix(ONES)).save("/proc/nowhere/model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_one_s_own_is_found(split, tmp_path):
    class Unpopularity(Popularity):
        def _score(self, rows):
            return -super()._score(rows)

    Unpopularity().fit(split.train).save(tmp_path / "model")
    assert type(load(tmp_path / "model")) is Unpopularity
    del recvae.Recommender.registry["Unpopularity"]
