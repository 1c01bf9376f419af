"""The second network of a HybridVAE: on which data it is trained, its epoch and weight, files, exports and growth."""

import io

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import HybridVAE, MultVAE, TrainingOptions, load, strong_split
from recvae.datasets.sample import make_sample
from recvae.models import hybrid_vae
from recvae.models.autoencoder.scoring import network_scores
from recvae.models.autoencoder.shape import Shape
from recvae.models.blending import CalibrationUsers, best_joint_ndcg
from recvae.serving.export import export_numpy, export_onnx
from recvae.serving.export.numpy_scorer import load as load_scorer
from recvae.training.callbacks import Callback

onnxruntime = pytest.importorskip("onnxruntime")
QUICK = {
    "epochs": 3,
    "batch_size": 60,
    "latent_dim": 8,
    "hidden_dim": 16,
    "depth": 2,
    "l2": 10.0,
    "item_power": 0.0,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def split():
    return strong_split(make_sample(n_users=400, n_items=150).interactions, heldout_users=80)


@pytest.fixture(scope="module")
def model(split):
    return HybridVAE(second_network="MultVAE", **QUICK).fit(split.train, valid=split.valid)


@pytest.mark.parametrize(
    ("shape", "thin"),
    [
        (Shape(1000, 1000, 19_999), True),
        (Shape(1000, 1000, 20_000), False),  # 20 events per user
        (Shape(10_000, 1000, 100_000), False),  # 100 events per item
        (Shape(10_000, 1000, 99_999), True),
    ],
)
def test_data_are_thin_whose_users_and_items_have_few_events(shape, thin):
    assert shape.is_thin is thin
    assert HybridVAE()._has_second(shape) is thin
    assert HybridVAE(second_network="MultVAE")._has_second(shape)
    assert not HybridVAE(second_network="none")._has_second(shape)


def test_wide_and_sparse_data_have_a_second_network_too():
    assert HybridVAE()._has_second(Shape(1000, 25_000, 50_000))
    assert not HybridVAE()._has_second(Shape(1000, 24_999, 50_000))
    assert not HybridVAE()._has_second(Shape(100_000, 25_000, 2_500_000))  # 100 events per item


def test_elsewhere_there_is_one_network(split):
    dense = HybridVAE(**QUICK).fit(split.train, valid=split.valid)
    assert dense.second_ is None
    assert dense.second_weight_ == 0
    assert not any(name.startswith("second") for name in dense._tensors())


def test_scores_are_those_of_three_parts(model, split):
    rows = split.test.fold_in[:5]
    parts = network_scores(model.network_, rows), model.linear_._score(rows), model.second_._score(rows)
    expected = parts[0] + model.weight_ * parts[1] + model.second_weight_ * parts[2]
    assert model.second_weight_ > 0
    assert torch.allclose(model._score(rows), expected, atol=1e-5)


def test_it_is_a_mult_vae_of_these_widths_and_options(model):
    second = model.second_
    assert isinstance(second, MultVAE)
    assert (second.latent_dim, second.hidden_dims, second.epochs, second.batch_size) == (8, (16,), 3, 60)


def test_its_epoch_is_the_best_with_the_other_two_parts(model, split):
    users = CalibrationUsers(split.valid.fold_in, split.valid.held_out)

    def others(rows):
        return network_scores(model.network_, rows) + model.weight_ * model.linear_._score(rows)

    joint = best_joint_ndcg(model.second_._score, others, users)
    assert joint == pytest.approx(max(epoch.valid for epoch in model.second_.history_))
    assert {epoch.part for epoch in model.second_.history_} == {"second network"}


def test_a_weight_of_zero_leaves_it_out(split, monkeypatch):
    weights = iter([1.0, 0.0])
    monkeypatch.setattr(hybrid_vae, "best_weight", lambda *_: next(weights))
    model = HybridVAE(second_network="MultVAE", **QUICK).fit(split.train, valid=split.valid)
    assert model.second_ is None
    assert model.second_weight_ == 0


def test_the_file_holds_it(model, split):
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    again, rows = load(file), split.test.fold_in[:5]
    assert again.second_weight_ == model.second_weight_
    assert torch.equal(again._score(rows), model._score(rows))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_exports_score_as_the_model_does(split, form):
    model = HybridVAE(second_network="MultVAE", form=form, **QUICK).fit(split.train)
    rows, numpy_file, onnx_file = split.test.fold_in[:5], io.BytesIO(), io.BytesIO()
    export_numpy(model, numpy_file)
    export_onnx(model, onnx_file)
    numpy_file.seek(0)
    ids, scores = model.recommend(np.arange(5), rows, 10)
    found = load_scorer(numpy_file).recommend((rows.indices, rows.indptr), 10)
    session = onnxruntime.InferenceSession(onnx_file.getvalue())
    items, offsets = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    for of_export in (found, session.run(None, {"items": items, "offsets": offsets, "N": np.array(10)})):
        assert (of_export[0] == ids).all()
        assert of_export[1] == pytest.approx(scores, abs=1e-4)


def test_it_learns_new_items(split, monkeypatch):
    monkeypatch.setattr(hybrid_vae, "best_weight", lambda *_: 0.5)  # 12 calibration users may leave it out
    rows = split.train.matrix
    model = HybridVAE(second_network="MultVAE", **QUICK).fit(rows[:, :140])
    before = model.second_
    model.partial_fit(rows, epochs=1)
    assert model.second_.n_items_ == rows.shape[1]
    assert model._score(rows[:3]).shape == (3, rows.shape[1])
    assert before.n_items_ == 140  # a model that somebody else has taken from it stays as it was
    assert not torch.equal(before.network_.decoder.weight, model.second_.network_.decoder.weight[:140])
    features = sparse.random(rows.shape[1] + 2, 6, 0.5, format="csr", random_state=0)
    model.add_items(features)
    assert model._score(sparse.csr_matrix((2, rows.shape[1] + 2), dtype=np.float32)).shape == (2, rows.shape[1] + 2)


def test_an_interrupted_fit_resumes_within_it(split, tmp_path):
    class StopError(Exception):
        pass

    class Stop(Callback):
        def on_epoch_end(self, epoch):
            if epoch.part == "second network" and epoch.epoch == 2:
                raise StopError

    whole = HybridVAE(second_network="MultVAE", **QUICK).fit(split.train)
    model = HybridVAE(second_network="MultVAE", **QUICK)
    with pytest.raises(StopError):
        model.fit(split.train, callbacks=[Stop()], checkpoint=tmp_path / "run")
    parts = []
    model.fit(
        split.train, callbacks=[lambda epoch: parts.append((epoch.part, epoch.epoch))], checkpoint=tmp_path / "run"
    )
    assert parts in ([("second network", 3)], [("second network", 2), ("second network", 3)])
    rows = split.test.fold_in[:5]
    assert torch.equal(model._score(rows), whole._score(rows))


def test_the_plan_counts_it(split):
    wide = {"hidden_dim": 20_000, "latent_dim": 2, "depth": 1}  # the tables of items are most of the memory
    both, first = (
        HybridVAE(second_network=kind, **wide).plan(split.train, calibrate=False) for kind in ("MultVAE", "none")
    )
    second = MultVAE(latent_dim=2, hidden_dims=(20_000,), training=TrainingOptions(averaging=0)).plan(
        split.train, valid=split.valid, calibrate=False
    )
    # it is trained next to the first network and the linear path
    least = second.memory.peak + first.memory.weights + 4 * 150**2
    assert first.memory.peak < least <= both.memory.peak < 1.1 * least
