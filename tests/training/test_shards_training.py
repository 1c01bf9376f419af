"""Training, testing and going on from shards: the same models as from the rows in memory."""

import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recvae import (
    EASE,
    Checkpoint,
    HybridVAE,
    Interactions,
    MultVAE,
    RecVAE,
    TrainingOptions,
    evaluate,
    load,
    strong_split,
)
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidParameterError, NotFittedError, NotSupportedError
from recvae.training.callbacks import Callback

pytest.importorskip("duckdb")

from recvae.data.shards import Shards, write_shards
from recvae.data.shards.shuffled import ShuffledRows

SMALL = {
    "latent_dim": 5,
    "batch_size": 30,
    "epochs": 3,
    "random_state": 0,
    "training": TrainingOptions(precision="float32"),
}


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    data = make_sample(320, 60).interactions
    cells, path = data.matrix.tocoo(), tmp_path_factory.mktemp("events") / "events.parquet"
    pq.write_table(pa.table({"user": data.user_ids[cells.row], "item": data.item_ids[cells.col]}), path)
    return path


@pytest.fixture(scope="module")
def split(events):
    return strong_split(Interactions.read(events), heldout_users=60)


@pytest.fixture(scope="module")
def one(events, tmp_path_factory):
    return write_shards(events, tmp_path_factory.mktemp("one"), heldout_users=60, show_progress=False)


@pytest.fixture(scope="module")
def many(events, tmp_path_factory):
    place = tmp_path_factory.mktemp("many")
    return write_shards(events, place, heldout_users=60, users_per_shard=20, show_progress=False)


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.network_.state_dict().values()])


@pytest.mark.parametrize("kind", [MultVAE, RecVAE])
def test_one_shard_gives_the_model_of_the_matrix(kind, one, split):
    from_disk = kind(**SMALL).fit(one, valid=one.valid)
    in_memory = kind(**SMALL).fit(split.train, valid=split.valid)
    assert torch.equal(weights(from_disk), weights(in_memory))
    assert from_disk.trained_on_ == in_memory.trained_on_
    assert from_disk.item_ids_.tolist() == in_memory.item_ids_.tolist()
    assert [epoch.valid for epoch in from_disk.history_] == [epoch.valid for epoch in in_memory.history_]


def test_many_shards_give_as_good_a_model(many, split):
    metrics = [
        evaluate(MultVAE(**SMALL | {"epochs": 12}).fit(data, valid=split.valid), split.test)["ndcg@100"].mean
        for data in (many, split.train)
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=0.05)


def test_a_fit_on_shards_goes_on_in_the_middle_of_a_window(many, tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    class StopAt(Callback):
        def on_step_end(self, epoch, step):
            if (epoch, step) == (2, 4):
                raise StopError

    monkeypatch.setattr("recvae.training.trainer.ShuffledRows", partial(ShuffledRows, window_bytes=9000))
    whole, keep = MultVAE(**SMALL).fit(many), Checkpoint(tmp_path, minutes=0)
    with pytest.raises(StopError):
        MultVAE(**SMALL).fit(many, callbacks=[StopAt()], checkpoint=keep)
    assert torch.equal(weights(MultVAE(**SMALL).fit(many, checkpoint=keep)), weights(whole))


def test_what_needs_all_rows_at_once_says_so(one):
    for kind in (EASE, HybridVAE):
        with pytest.raises(NotSupportedError, match=rf"{kind.__name__} needs all rows in memory.*shards.rows\(0, "):
            kind().fit(one)


def test_values_are_those_of_the_shards(one):
    with pytest.raises(InvalidParameterError, match=r"Expected values='binary' as the shards in .* were written"):
        MultVAE(values="log1p").fit(one)


def test_shards_leave_no_users_in_the_model(one):
    model = MultVAE(**SMALL).fit(one)
    with pytest.raises(NotFittedError, match="fitted on shards"):
        model.similar_users(0)


def test_the_commands_train_and_evaluate_on_shards(many, tmp_path, capsys):
    out, kept = tmp_path / "model", tmp_path / "kept"
    command = [
        "train",
        "--shards",
        str(many.folder),
        "--param",
        "epochs=2",
        "--out",
        str(out),
        "--checkpoint",
        str(kept),
    ]
    assert main([*command, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["users"], done["items"]) == many.shape
    assert main(command) == 0  # at its end already
    capsys.readouterr()
    assert main(["evaluate", str(out), "--shards", str(many.folder), "--metrics", "recall@20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["users"] == len(many.test.users)
    assert load(out).trained_on_ == Shards(many.folder).fingerprint()


def test_what_was_settled_with_the_shards_is_not_asked_again(many, tmp_path, capsys):
    for flag in (["--heldout-users", "5"], ["--input", "x.parquet"], ["--dataset", "ml-1m"]):
        command = ["train", "--shards", str(many.folder), "--out", str(tmp_path / "model"), *flag]
        assert main(command) == 2
        assert "what is in them was settled by recvae shard" in capsys.readouterr().err
