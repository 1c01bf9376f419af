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
from scipy import sparse

from recvae import MultVAE, load
from recvae.errors import InvalidDataError, RecvaeError, UnknownNameError
from recvae.models.base import model_file as saving
from recvae.models.baselines import Popularity
from recvae.utils.memory import PeakMemory
from tests.models.test_saving import FIXTURES

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
            with pytest.raises(InvalidDataError, match=r"^The file holds a .* cannot restore: [^\n]*$"):
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

    with pytest.raises(InvalidDataError, match="cannot restore"), little_memory:
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
            with pytest.raises(InvalidDataError, match="cannot restore"):
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
    with pytest.raises(InvalidDataError, match=r"that this version of recvae, .*, cannot restore"):
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
    with pytest.raises(InvalidDataError, match="cannot restore"):
        load(file)


# what a file may hold -------------------------------------------------------------------------------------------------


def spoiled(stem, change):
    """A file of before with what `change` makes of its tensors and its description."""
    return changed((FIXTURES[0].parent / f"{stem}.recvae").read_bytes(), change)


REAL = {path.stem: saving.read_model(path)[0] for path in FIXTURES}


@pytest.mark.parametrize("stem", REAL)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(stem, number):
    for name, tensor in REAL[stem].items():
        if tensor.is_floating_point():
            with pytest.raises(InvalidDataError, match=f"Expected finite numbers as {name}, got NaN or an infinity"):
                load(spoiled(stem, lambda tensors, _, name=name: tensors[name].view(-1)[-1:].fill_(number)))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.uint16])
def test_types_that_model_files_do_not_have(kind):
    for stem, name in (("EASE", "weights"), ("MultVAE", "decoder.weight"), ("Popularity", "item_counts")):
        with pytest.raises(InvalidDataError, match=r"which is damaged or another: .* is of type '\w+'"):
            load(spoiled(stem, lambda tensors, _, name=name: tensors.update({name: tensors[name].to(kind)})))


@pytest.mark.parametrize("kind", [torch.bool, torch.float16, torch.float64, torch.int32])
def test_types_that_a_model_does_not_take(kind):
    for stem in ("EASE", "BPR", "ALS", "ItemKNN", "GFCF", "SLIM", "Popularity"):
        with pytest.raises(InvalidDataError, match=r"cannot restore: Expected .* of float32"):
            load(spoiled(stem, lambda tensors, _: tensors.update({n: t.to(kind) for n, t in tensors.items()})))


INDPTR = [[0, 10**9] + [0] * 7, [0, 2**31 - 1, -2, 5, 6, 7, 8, 9, 24], [3] * 9, [0, 9, 3, 9, 9, 9, 9, 9, 24]]


@pytest.mark.parametrize("stem", ["EASE-sparse", "HybridVAE-sparse", "ItemKNN", "RP3beta", "GFCF", "SLIM"])
def test_index_arrays_that_lie(stem):
    path = "linear." if stem.startswith("Hybrid") else ""
    lies = [("indptr", torch.tensor(lie, dtype=kind)) for lie in INDPTR for kind in (torch.int32, torch.int64)]
    size = len(REAL[stem][f"{path}indices"])
    lies += [("indptr", torch.zeros(8, dtype=torch.int32)), ("indptr", torch.zeros(2, 9, dtype=torch.int32))]
    lies += [("indices", torch.full((size,), item, dtype=torch.int64)) for item in (-1, 8, 2**31, -(2**40))]
    lies += [("indptr", torch.linspace(0, size, 9)), ("data", torch.ones(size - 1))]
    for name, lie in lies:
        with pytest.raises(InvalidDataError, match="cannot restore"):
            load(spoiled(stem, lambda tensors, _, name=name, lie=lie: tensors.update({path + name: lie})))


@pytest.mark.parametrize("stem", REAL)
@pytest.mark.parametrize("n_items", [9, 10**7, 2**31 - 1, 10**12, 10**400, -1, 8.0, "8", None])
def test_items_that_no_tensor_proves(stem, n_items, little_memory):
    def claim(_, description):
        description.update(n_items=n_items, item_ids=None, titles=None)

    with pytest.raises(InvalidDataError, match="cannot restore"), little_memory:
        load(spoiled(stem, claim))


@pytest.mark.parametrize(
    ("stem", "parameters"),
    [
        ("MultVAE", {"device": "meta"}),
        ("MultVAE", {"device": "cpu"}),
        ("MultVAE", {"precision": "bfloat16"}),
        ("EASE", {"l2": 10**400}),
        ("EASE", {"l2": 1e300}),
        ("EASE", {"l2": "300"}),
        ("ALS", {"alpha": -1}),
        ("ALS", {"factors": 10**30}),
        ("BPR", {"iterations": 2**64}),
        ("RecVAE", {"depth": [2]}),
        ("MultVAE", {"hidden_dims": [10**9]}),
        ("MultVAE", {"hidden_dims": 3}),
        ("MultVAE", {"likelihood": ["multinomial"]}),
        ("MultVAE", {"likelihood": None}),
        ("HVamp", {"n_components": 10**18}),
    ],
    ids=str,
)
def test_hyper_parameters_are_those_of_a_constructor(stem, parameters, little_memory):
    with pytest.raises(InvalidDataError, match="cannot restore"), little_memory:
        load(spoiled(stem, lambda _, description: description["parameters"].update(parameters)))


@pytest.mark.parametrize(
    ("stem", "name", "number"),
    [("HybridVAE", "l2", -1.0), ("MultVAE", "kl_cap", -0.5), ("Popularity", "item_counts", -1)],
)
def test_numbers_out_of_their_range(stem, name, number):
    def lower(tensors, _):
        tensors[name] = torch.full_like(tensors.get(name, torch.tensor(0.0, dtype=torch.float64)), number)

    with pytest.raises(InvalidDataError, match=r"cannot restore: .*(zero or more|of at least 0)"):
        load(spoiled(stem, lower))


def with_header(change, body=SMALL_FILE):
    """The file with what `change` makes of its header."""
    size = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + body[8 + size :])


@pytest.mark.parametrize(
    "offsets", [[0, 31], [4, 36], [-4, 28], [0, 2**63], ["0", "32"], [0.5, 32.5], [0], None, {}, [32, 0]]
)
def test_offsets_that_overlap_or_leave_gaps(offsets):
    with pytest.raises(InvalidDataError, match=r"^Expected a model file of recvae, got [^\n]*$"):
        load(with_header(lambda header: header["decoder.bias"].update(data_offsets=offsets)))


def test_text_without_end_or_depth():
    for text in (
        "[" * 10**5,
        '{"format":' * 10**5,
        '{"format": NaN}',
        '{"format": -Infinity}',
        "9" * 5000,
        '{"format": "\ud800"}',
    ):
        with pytest.raises(InvalidDataError, match=r"^Expected a model file of recvae, got [^\n]*$"):
            load(with_header(lambda header, text=text: header["__metadata__"].update(recvae=text)))


@pytest.mark.parametrize("version", ["9\n9", "\x1b[31m", "\ud800", "9" * 10**6, 10**400])
def test_sentences_are_one_line_whatever_a_file_says(version):
    for changes in ({"format": version}, {"format": 9, "version": version}, {"class": version}, {"values": version}):
        with pytest.raises(RecvaeError) as said:
            load(spoiled("EASE", lambda _, description, changes=changes: description.update(changes)))
        assert str(said.value).isprintable()
        assert len(str(said.value)) < 1000


def test_a_file_larger_than_its_header_says_is_not_read(tmp_path, little_memory):
    for name, change in (("longer", lambda header: None), ("claims", claim_much)):
        path = tmp_path / name
        path.write_bytes(with_header(change).read())
        with path.open("r+b") as file:
            file.truncate(20 << 30)  # a hole, which takes no room on the disk
    with little_memory:
        for path in tmp_path.iterdir():
            with pytest.raises(InvalidDataError, match="bytes, where its header names"):
                load(path)
            with pytest.raises(RecvaeError, match=r"more than its header names|GiB of memory"), path.open("rb") as file:
                load(file)


def claim_much(header):
    """Ten of twelve tensors as large as a computer."""
    end = 0
    for entry in list(header.values())[1:]:
        entry.update(dtype="F32", shape=[10**12], data_offsets=[end, end := end + 4 * 10**12])


@pytest.mark.parametrize("stem", ["EASE", "MultVAE", "ALS"])
def test_weights_too_large_to_be_added_give_a_sentence_and_no_list(stem):
    def enlarge(tensors, _):
        for tensor in tensors.values():
            tensor.fill_(3e38)

    model = load(spoiled(stem, enlarge))
    row = sparse.csr_matrix([[1, 1, 1, 1, 0, 0, 0, 0]])
    for ask in (model.recommend, lambda _, row: model.score(row)):
        with pytest.raises(RecvaeError):
            ask(0, row)
