"""Model files that are damaged, foreign or lie about themselves: one sentence, quickly, and nothing is run.

What is damaged by chance is judged by the fuzzer in tests/fuzz.
"""

import contextlib
import io
import json
import pickle
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from recvae import MultVAE, load, saving
from recvae.baselines import Popularity
from recvae.errors import InvalidDataError, UnknownNameError
from recvae.memory import PeakMemory
from tests.test_saving import FIXTURES

SMALL_FILE = next(path for path in FIXTURES if path.stem == "MultVAE").read_bytes()


@pytest.fixture
def file(split, tmp_path):
    path = tmp_path / "model.recvae"
    MultVAE(latent_dim=4, hidden_dims=(8,), epochs=1, random_state=0).fit(split.train).save(path)
    return path


@pytest.fixture(params=["path", "stream"])
def read(request, tmp_path):
    """Load from bytes, as a file or as an open one."""

    def from_path(content):
        (tmp_path / "some.recvae").write_bytes(content)
        return load(tmp_path / "some.recvae")

    return from_path if request.param == "path" else lambda content: load(io.BytesIO(content))


def test_any_cut_is_noticed(read):
    for size in range(len(SMALL_FILE)):
        with pytest.raises(InvalidDataError, match="Expected a model file of recvae"):
            read(SMALL_FILE[:size])
    with pytest.raises(InvalidDataError, match="Expected a model file of recvae"):
        read(SMALL_FILE + b"\0")


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
def test_any_flipped_byte_is_noticed(flip):
    for place in range(len(SMALL_FILE)):
        flipped = bytearray(SMALL_FILE)
        flipped[place] ^= flip
        with pytest.raises(InvalidDataError, match="model file") as said:
            load(io.BytesIO(flipped))
        assert "\n" not in str(said.value)


class Dangerous:
    """Unpickled, it leaves a mark."""

    def __reduce__(self):
        return Path.touch, (Path("mark"),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"\xff" * 200,
        b"{}",
        b"\x02" + b"\0" * 7 + b"{}",
        (99_999_999).to_bytes(8, "little") + b'{"__metadata__": {}}',
        (20).to_bytes(8, "little") + b'{"__metadata__": []}' + b" " * 9,
        (10**5).to_bytes(8, "little") + b"[" * 10**5,
        pickle.dumps(Dangerous()),
        pickle.dumps(Dangerous(), protocol=0),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_foreign_files_are_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("foreign").write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"Expected a model file of recvae, got .*foreign"):
        load("foreign")
    assert not Path("mark").exists()


def test_safetensors_of_others_are_refused(tmp_path):
    for metadata in (None, {"format": "pt"}, {"recvae": "3", "sha256": ""}):
        safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other", metadata)
        with pytest.raises(InvalidDataError, match="Expected a model file of recvae"):
            load(tmp_path / "other")


@pytest.mark.parametrize("shape", [[10**6, 10**6], [0, 10**12], [2**63, 2**63], [-1, 8], [8, 3.0], "x"])
def test_tensors_that_are_not_there_are_not_made_room_for(shape, little_memory):
    size = int.from_bytes(SMALL_FILE[:8], "little")
    header = json.loads(SMALL_FILE[8 : 8 + size])
    header["decoder.weight"]["shape"] = shape
    text = json.dumps(header).encode()
    with pytest.raises(InvalidDataError), little_memory:
        load(io.BytesIO(len(text).to_bytes(8, "little") + text + SMALL_FILE[8 + size :]))


@pytest.fixture
def little_memory():
    """Within this, no more than 200 MiB are taken, and five seconds."""

    @contextlib.contextmanager
    def watched():
        started, before = time.perf_counter(), psutil.Process().memory_info().rss / 2**20
        with PeakMemory() as memory:
            try:
                yield
            finally:
                assert time.perf_counter() - started < 5
        assert memory.mib < before + 200

    return watched()


def changed(content, change):
    """The file with what `change` makes of its tensors and its description, and a checksum that fits."""
    tensors, description = saving.read_model(io.BytesIO(content))
    change(tensors, description)
    text = json.dumps(description)
    metadata = {"recvae": text, "sha256": saving._checksum(tensors, text)}
    return io.BytesIO(safetensors.torch.save(tensors, metadata))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("huge", [10**9, 10**30])
def test_what_a_file_claims_costs_nothing(path, huge):
    """Each number of its description, made huge: a sentence, or it does not matter to the fitted model."""
    _, description = saving.read_model(path)
    numbers = [name for name, value in description["parameters"].items() if isinstance(value, int)]
    shapes = {"latent_dim", "hidden_dim", "hidden_dims", "depth", "n_components", "n_items"}
    for name in [*numbers, "n_items", *({"hidden_dims"} & description["parameters"].keys())]:

        def enlarge(_, description, name=name):
            owner = description if name == "n_items" else description["parameters"]
            owner[name] = [huge] if name == "hidden_dims" else huge

        started = time.perf_counter()
        content = changed(path.read_bytes(), enlarge)
        if name in shapes:
            with pytest.raises(InvalidDataError, match=r"^The file holds a .* cannot make again: [^\n]*$"):
                load(content)
        else:
            with contextlib.suppress(InvalidDataError):
                load(content)
        assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", ["MultVAE", "RecVAE", "EASE", "Popularity", "HVamp"])
def test_claims_take_no_memory(name, little_memory):
    path = next(path for path in FIXTURES if path.stem == name)

    def enlarge(_, description):
        description["n_items"] = 10**7
        description["item_ids"] = description["titles"] = None
        if "latent_dim" in description["parameters"]:
            description["parameters"]["latent_dim"] = 10**4
        if "hidden_dims" in description["parameters"]:
            description["parameters"]["hidden_dims"] = [10**5, 10**5]

    with pytest.raises(InvalidDataError, match="cannot make again"), little_memory:
        load(changed(path.read_bytes(), enlarge))


def test_more_layers_than_tensors():
    def enlarge(_, description):
        description["parameters"]["hidden_dims"] = [1] * 10**6

    with pytest.raises(InvalidDataError, match="more layers than its"):
        load(changed(SMALL_FILE, enlarge))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_tensors_of_another_type_shape_or_name(path):
    names = list(saving.read_model(path)[0])

    def drop(tensors, name):
        del tensors[name]

    def lengthen(tensors, name):
        tensors[name] = torch.cat([tensors[name].reshape(-1), tensors[name].reshape(-1)])

    for name in (name for name in names if name not in ("weight", "l2")):
        for spoil in (drop, lengthen, lambda tensors, name: tensors.update({name: tensors[name].to(torch.float16)})):
            with pytest.raises(InvalidDataError, match="cannot make again"):
                load(changed(path.read_bytes(), lambda tensors, _, name=name, spoil=spoil: spoil(tensors, name)))


def test_ids_and_titles_that_would_not_be_read_again_are_not_written(split, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "HEADER", 1000)
    with pytest.raises(InvalidDataError, match="ids and titles of at most 1,000 bytes"):
        Popularity().fit(split.train).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def rewrite(file, **changes):
    """The file with a changed description and a checksum that fits."""
    file.write_bytes(changed(file.read_bytes(), lambda _, description: description.update(changes)).read())


def test_models_and_formats_that_are_not_known_here(file):
    rewrite(file, format=99, version="9.9")
    with pytest.raises(InvalidDataError, match=r"format 1, got 99 in .*; load it with recvae 9\.9"):
        load(file)


@pytest.mark.parametrize("name", [None, 3, ["MultVAE"], {}])
def test_a_class_that_is_no_name(file, name):
    rewrite(file, **{"class": name})
    with pytest.raises(UnknownNameError, match="no model class called"):
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
    "changes",
    [
        {"item_ids": [1]},
        {"n_items": 7},
        {"n_items": -1},
        {"n_items": True},
        {"values": "odd"},
        {"titles": "x"},
        {"titles": [1] * 80},
        {"item_ids": ["a"] * 80},
        {"item_ids": [0.5] * 80},
        {"trained_on": 3},
        {"parameters": 3},
    ],
    ids=str,
)
def test_descriptions_that_do_not_fit(file, changes):
    rewrite(file, **{"parameters": {"latent_dim": 4, "hidden_dims": [8]}} | changes)
    with pytest.raises(InvalidDataError, match="cannot make again"):
        load(file)
