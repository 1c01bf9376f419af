import copy
import functools
import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse

from recvae import (
    EASE,
    Checkpoint,
    HVamp,
    HybridVAE,
    Interactions,
    MultDAE,
    MultVAE,
    OutputOptions,
    RecVAE,
    TrainingOptions,
    strong_split,
)
from recvae.errors import InvalidDataError, InvalidParameterError, NotSupportedError, OutputError
from recvae.models.base.params import with_params
from tests.processes import start_process
from tests.training.stops import StopAt, StopError

ROWS = sparse.random(60, 20, 0.3, format="csr", random_state=0, dtype=np.float32)
ROWS.data[:] = 1
SMALL = {"latent_dim": 3, "batch_size": 16, "random_state": 0}
PLAIN = TrainingOptions(precision="float32")
MODELS = {
    "MultVAE": MultVAE(hidden_dims=(5,), epochs=4, training=replace(PLAIN, averaging=1.0), **SMALL),
    "MultDAE": MultDAE(epochs=4, training=PLAIN, **SMALL),
    "RecVAE": RecVAE(hidden_dim=6, depth=2, epochs=3, encoder_passes=3, decoder_passes=1, training=PLAIN, **SMALL),
    "HVamp": HVamp(hidden_dims=(5,), n_components=3, epochs=4, training=PLAIN, **SMALL),
    "MultVAE-sampled": MultVAE(
        hidden_dims=(5,), epochs=4, **SMALL, training=replace(PLAIN, impl="sampled", num_negatives=6)
    ),
    "MultVAE-tied": MultVAE(
        hidden_dims=(5,), epochs=4, training=PLAIN, **SMALL, output=OutputOptions(tied_embeddings=True)
    ),
    "MultDAE-in-batch": MultDAE(
        epochs=4, **SMALL, training=replace(PLAIN, impl="sampled", sampler="in-batch", num_negatives=6)
    ),
    "RecVAE-sampled-tied": RecVAE(
        hidden_dim=3,
        depth=2,
        epochs=3,
        encoder_passes=3,
        decoder_passes=1,
        **SMALL,
        output=OutputOptions(tied_embeddings=True),
        training=replace(PLAIN, impl="sampled", num_negatives=6, sampler="uniform"),
    ),
    "HVamp-sampled": HVamp(
        hidden_dims=(5,),
        n_components=3,
        epochs=4,
        **SMALL,
        training=replace(PLAIN, impl="sampled", num_negatives=6, max_grad_norm=0.5),
    ),
    "HybridVAE": HybridVAE(hidden_dim=6, depth=2, epochs=3, l2=10.0, training=PLAIN, **SMALL),
}


def again(name, **changes):
    return with_params(MODELS[name], changes)


def same(one, other):
    pairs = zip(one.network_.state_dict().items(), other.network_.state_dict().items(), strict=True)
    return all(name == name2 and torch.equal(a, b) for (name, a), (name2, b) in pairs)


@pytest.fixture(scope="module")
def split():
    rows = sparse.random(168, 20, 0.4, format="csr", random_state=1, dtype=np.float32)
    rows.data[:] = 1
    return strong_split(Interactions.from_matrix(rows), heldout_users=40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a fit of the MultVAE that is done, which no test writes to."""
    folder = tmp_path_factory.mktemp("finished") / "kept"
    again("MultVAE").fit(ROWS, checkpoint=folder)
    return folder


@pytest.fixture
def kept(finished, tmp_path):
    """A folder like that, of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "kept"))


@pytest.fixture(scope="module")
def whole_fit(split):
    """Name -> that model, fitted without an interruption."""
    return functools.cache(lambda name: again(name).fit(split.train, valid=split.valid))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [0, 1, 5, 9])
def test_a_stopped_fit_goes_on_to_the_same_weights(name, steps, split, whole_fit, tmp_path):
    whole = whole_fit(name)
    keep = Checkpoint(tmp_path / "kept", minutes=0)
    with pytest.raises(StopError):
        again(name).fit(split.train, valid=split.valid, callbacks=[StopAt(steps)], checkpoint=keep)
    gone_on = again(name).fit(split.train, valid=split.valid, checkpoint=keep.folder)
    assert same(gone_on, whole)
    assert [epoch.loss for epoch in gone_on.history_] == [epoch.loss for epoch in whole.history_]
    assert [epoch.valid for epoch in gone_on.history_] == [epoch.valid for epoch in whole.history_]
    assert gone_on.best_epoch_ == whole.best_epoch_


def test_a_fit_that_is_stopped_again_and_again_comes_to_its_end(tmp_path):
    whole, keep, stops = again("RecVAE").fit(ROWS), Checkpoint(tmp_path, minutes=0), 0
    while True:
        try:
            gone_on = again("RecVAE").fit(ROWS, callbacks=[StopAt(3)], checkpoint=keep)
            break
        except StopError:
            stops += 1
    assert stops == 15  # of 48 steps, three at a time
    assert same(gone_on, whole)


def test_both_runs_that_find_a_cap_are_kept(split, tmp_path):
    settings = {"kl_cap": None, "epochs": 3}
    whole = again("MultVAE", **settings).fit(split.train, valid=split.valid)
    steps = 3 * -(-split.train.n_users // 16)
    for stop in (2, steps + 2):
        keep = Checkpoint(tmp_path / str(stop), minutes=0)
        with pytest.raises(StopError):
            again("MultVAE", **settings).fit(split.train, valid=split.valid, callbacks=[StopAt(stop)], checkpoint=keep)
        gone_on = again("MultVAE", **settings).fit(split.train, valid=split.valid, checkpoint=keep.folder)
        assert same(gone_on, whole)
        assert gone_on.kl_cap_ == whole.kl_cap_


def test_a_fit_that_is_done_is_not_done_again(tmp_path):
    heard = []
    first = again("MultVAE").fit(ROWS, checkpoint=tmp_path)
    second = again("MultVAE").fit(ROWS, checkpoint=tmp_path, callbacks=[heard.append])
    assert heard == []
    assert same(first, second)
    assert [epoch.loss for epoch in second.history_] == [epoch.loss for epoch in first.history_]


def test_a_seed_that_was_drawn_is_kept(tmp_path):
    keep = Checkpoint(tmp_path, minutes=0)
    with pytest.raises(StopError):
        again("MultVAE", random_state=None).fit(ROWS, callbacks=[StopAt(3)], checkpoint=keep)
    drawn = json.loads((tmp_path / "network" / "_manifest.json").read_text())["facts"]["seed"]
    gone_on = again("MultVAE", random_state=None).fit(ROWS, checkpoint=keep)
    assert same(gone_on, again("MultVAE", random_state=drawn).fit(ROWS))


def test_one_state_is_kept_and_only_when_asked(tmp_path):
    again("MultVAE").fit(ROWS, checkpoint=Checkpoint(tmp_path / "each", minutes=0))
    again("MultVAE").fit(ROWS, checkpoint=Checkpoint(tmp_path / "end", minutes=None, epochs=None))
    for folder in ("each", "end"):
        names = sorted(path.name for path in (tmp_path / folder / "network").iterdir())
        assert names == ["_manifest.json", "step-00004-00000000.safetensors"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda: again("MultVAE", learning_rate=0.5).fit, "parameters"),
        (lambda: again("MultDAE").fit, "model"),
        (lambda: lambda rows, **more: again("MultVAE").fit(rows[:50], **more), "rows"),
    ],
)
def test_another_model_or_other_rows_are_refused(change, word, kept):
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    with pytest.raises(InvalidParameterError, match=f"Expected the {word} with which .* was begun"):
        change()(ROWS, checkpoint=kept)
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_other_validation_users_are_refused(split, tmp_path):
    again("MultVAE").fit(split.train, valid=split.valid, checkpoint=tmp_path)
    with pytest.raises(InvalidParameterError, match="Expected the validation users with which"):
        again("MultVAE").fit(split.train, valid=split.test, checkpoint=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_state_is_named(damage, kept):
    (path,) = (kept / "network").glob("step-*")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content)
    with pytest.raises(InvalidDataError, match=rf"{path.name} as it was written.*delete .*network to begin again"):
        again("MultVAE").fit(ROWS, checkpoint=kept)


FACTS = [
    ("history", 3),
    ("history", []),
    ("history", [3] * 4),
    ("history", [{}] * 4),
    ("epoch", 5),
    ("epoch", True),
    ("step", -1),
    ("step", 1),
    ("step", 10**30),
    ("seed", "x"),
    ("seed", -1),
    ("best", None),
    ("best", float("nan")),
    ("best_epoch", 0),
    ("best_epoch", 9),
]


def refused(folder):
    with pytest.raises(InvalidDataError) as said:
        again("MultVAE").fit(ROWS, checkpoint=folder)
    assert "\n" not in str(said.value)
    assert "to begin again" in str(said.value)


def test_what_a_manifest_may_not_say(kept):
    """Of older versions, which have no checksum, too: of files outside, of two files, of another history."""
    path = kept / "network" / "_manifest.json"
    good = json.loads(path.read_text())
    del good["sha256"]
    part = good["parts"][0]
    found = [good | {"facts": good["facts"] | {name: odd}} for name, odd in FACTS]
    found += [good | {"parts": parts} for parts in ([part] * 2, [part, part | {"file": "step-x.safetensors"}], [3], {})]
    for file in ("../../model", "/etc/passwd", "a/b", "..", "", ".", None, 3, "\ud800", "a\0b", "x" * 300, "notes.txt"):
        found.append(good | {"parts": [part | {"file": file}]})
    for name, odd in (("loss", None), ("loss", float("inf")), ("epoch", 7), ("valid", "x"), ("part", 3), ("new", 1)):
        changed = copy.deepcopy(good)
        changed["facts"]["history"][1][name] = odd
        found.append(changed)
    for manifest in found:
        path.write_text(json.dumps(manifest))
        refused(kept)
    path.write_text(json.dumps(good))
    assert same(again("MultVAE").fit(ROWS, checkpoint=kept), again("MultVAE").fit(ROWS))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("network.decoder.weight", lambda tensor: tensor.fill_(float("nan"))),
        ("network.decoder.weight", lambda tensor: tensor[:5]),
        ("network.decoder.weight", lambda tensor: tensor.half()),
        ("network.decoder.weight", lambda tensor: None),
        ("network.decoder.odd", lambda tensor: torch.zeros(3)),
        ("best.decoder.weight", lambda tensor: torch.zeros(3)),
        ("average.decoder.weight", lambda tensor: tensor[:5]),
        ("average.decoder.weight", lambda tensor: None),
        ("steps", lambda tensor: torch.zeros(2, 3)),
        ("steps", lambda tensor: None),
        ("optimizer.0.0.exp_avg", lambda tensor: tensor[:1]),
        ("optimizer.0.0.exp_avg", lambda tensor: None),
        ("optimizer.0.0.exp_avg_sq", lambda tensor: tensor - 1),
        ("optimizer.0.99.exp_avg", lambda tensor: torch.zeros(3)),
        ("optimizer.7.0.exp_avg", lambda tensor: torch.zeros(3)),
        ("optimizer.x", lambda tensor: torch.zeros(3)),
        ("prior.mean", lambda tensor: torch.zeros(3)),
        ("else", lambda tensor: torch.zeros(3)),
    ],
)
def test_tensors_that_do_not_fit(name, change, kept):
    """With a manifest that fits them."""
    path = kept / "network" / "_manifest.json"
    manifest = json.loads(path.read_text())
    file = kept / "network" / manifest["parts"][0]["file"]
    tensors = safetensors.torch.load_file(file)
    changed = change(tensors.get(name))
    tensors = {
        **{key: tensor for key, tensor in tensors.items() if key != name},
        **({} if changed is None else {name: changed}),
    }
    safetensors.torch.save_file(tensors, file)
    content = file.read_bytes()
    manifest["parts"][0] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    refused(kept)


def test_what_is_no_network_has_nothing_to_go_on_with(tmp_path):
    with pytest.raises(NotSupportedError, match="EASE has no training to resume"):
        EASE().fit(ROWS, checkpoint=tmp_path)


@pytest.mark.parametrize("bad", [{"minutes": -1}, {"minutes": "soon"}, {"epochs": 0}])
def test_bad_intervals(bad, tmp_path):
    with pytest.raises(InvalidParameterError, match="of a Checkpoint"):
        again("MultVAE").fit(ROWS, checkpoint=Checkpoint(tmp_path, **bad))


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"got .* with mine.txt in it"):
        again("MultVAE").fit(ROWS, checkpoint=tmp_path)


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    whole, keep, written = again("MultVAE").fit(ROWS), Checkpoint(tmp_path, minutes=0), []
    save = safetensors.torch.save_file

    def full(tensors, path):
        written.append(path)
        if len(written) == 6:
            Path(path).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OutputError, match=r"room for a checkpoint at .*step-.*No space left.*the one before it stays"):
        again("MultVAE").fit(ROWS, checkpoint=keep)
    names = sorted(path.name for path in (tmp_path / "network").iterdir())
    assert names == ["_manifest.json", "step-00001-00000000.safetensors"]
    assert same(again("MultVAE").fit(ROWS, checkpoint=keep), whole)


def test_two_at_a_time_are_refused(tmp_path):
    def meanwhile(_):
        with pytest.raises(OutputError, match="another one is writing to it"):
            again("MultVAE").fit(ROWS, checkpoint=tmp_path)

    again("MultVAE").fit(ROWS, checkpoint=tmp_path, callbacks=[meanwhile])


FIT = """
import sys
from scipy import sparse
from recvae import Checkpoint, MultVAE
rows = sparse.load_npz(sys.argv[1])
keep = Checkpoint(sys.argv[2], minutes=0)
MultVAE(hidden_dims=(5,), latent_dim=3, batch_size=16, epochs=20, random_state=0).fit(rows, False, checkpoint=keep)
"""


def test_a_killed_process_leaves_a_whole_state(tmp_path):
    """At whatever moment; the long check is `python -m benchmarks resume`."""
    sparse.save_npz(tmp_path / "rows.npz", ROWS)
    settings = {"epochs": 20, "training": TrainingOptions()}
    whole = again("MultVAE", **settings).fit(ROWS)
    process = start_process(FIT, tmp_path / "rows.npz", tmp_path / "kept")
    while process.is_alive() and not list(tmp_path.glob("kept/network/step-*")):
        time.sleep(0.005)
    process.kill()
    process.join()
    gone_on = again("MultVAE", **settings).fit(ROWS, checkpoint=tmp_path / "kept")
    assert same(gone_on, whole)
