import io
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse

import recvae
from recvae import HVamp, Interactions, MultDAE, MultVAE, load, saving
from recvae.baselines import ALS, ItemKNN, Popularity
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidTypeError,
    NotFittedError,
    OutputError,
    UnknownNameError,
)
from recvae.params import get_params

ONES = sparse.csr_matrix(np.ones((3, 3)))
MODELS = {
    "MultVAE": MultVAE(latent_dim=4, hidden_dims=(8, 6), epochs=np.int64(2), kl_cap=np.float32(0.5), random_state=0),
    "MultVAE-cosine": MultVAE(latent_dim=4, epochs=2, logits="cosine", temperature=0.2, random_state=0),
    "HVamp": HVamp(latent_dim=4, hidden_dims=(8, 6), n_components=3, epochs=2, likelihood="logistic", random_state=0),
    "MultDAE": MultDAE(latent_dim=4, epochs=2, random_state=0, values="log1p"),
    "ALS": ALS(factors=4, random_state=0),
    "ItemKNN": ItemKNN(weighting="bm25", K=7),
    "Popularity": Popularity(),
}


@pytest.fixture(params=MODELS)
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


# files that are no good ----------------------------------------------------------------------------------------------


def test_any_cut_and_any_flipped_bit_is_noticed(file):
    content = file.read_bytes()
    for size in (0, 4, 8, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(InvalidDataError, match=r"model\.recvae"):
            load(file)
    random = np.random.default_rng(0)
    for place in [*range(0, 300, 7), *random.integers(0, len(content), 60).tolist()]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        file.write_bytes(flipped)
        with pytest.raises(InvalidDataError, match=r"model\.recvae"):
            load(file)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a pickle of torch", b"\xff" * 200, b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_foreign_files_are_refused(content, tmp_path):
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"Expected a model file of recvae, got .*foreign"):
        load(tmp_path / "foreign")


def test_safetensors_of_others_are_refused(tmp_path):
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other", metadata)
        with pytest.raises(InvalidDataError, match="Expected a model file of recvae"):
            load(tmp_path / "other")


def rewrite(file, **changes):
    """The file with a changed description and a checksum that fits."""
    tensors, description = saving.read_model(file)
    text = json.dumps(description | changes)
    file.write_bytes(safetensors.torch.save(tensors, {"recvae": text, "sha256": saving._checksum(tensors, text)}))


def test_models_and_formats_that_are_not_known_here(file):
    rewrite(file, format=99, version="9.9")
    with pytest.raises(InvalidDataError, match=r"format 1, got 99 in .*; load it with recvae 9\.9"):
        load(file)


def test_a_class_of_someone_else_s(file):
    rewrite(file, **{"class": "MultVEA"})
    with pytest.raises(UnknownNameError, match="no model class called 'MultVEA'; did you mean MultVAE"):
        load(file)


@pytest.mark.parametrize("parameters", [{"latent_dim": 5}, {"no_such": 1}, {"hidden_dims": [8, 8]}])
def test_parameters_that_do_not_fit_the_tensors(file, parameters):
    rewrite(file, parameters={"latent_dim": 4, "hidden_dims": [8]} | parameters)
    with pytest.raises(InvalidDataError, match=r"that this version of recvae, .*, cannot make again"):
        load(file)


@pytest.mark.parametrize(
    "changes", [{"item_ids": [1]}, {"n_items": 7}, {"values": None, "titles": "x"}, {"parameters": 3}]
)
def test_descriptions_that_do_not_fit(file, changes):
    rewrite(file, **{"parameters": {"latent_dim": 4, "hidden_dims": [8]}} | changes)
    with pytest.raises(InvalidDataError, match="cannot make again"):
        load(file)


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
    del recvae.Recommender.known["Unpopularity"]
