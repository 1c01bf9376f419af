"""The scorer that needs numpy alone, as whoever copies its one file uses it."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from recvae import HybridVAE, MultVAE
from recvae.serving.export import export_numpy, numpy_scorer
from recvae.utils.memory import PeakMemory

SMALL = {"latent_dim": 8, "epochs": 1, "random_state": 0}
WORST = np.finfo(np.float32).min


@pytest.fixture(scope="module")
def models(split):
    """One of binary values, one that reads values and has a sparse path."""
    hybrid = HybridVAE(hidden_dim=8, depth=1, l2=10.0, form="sparse", neighbours=10, values="raw", **SMALL)
    return [model.fit(split.train, show_progress=False) for model in (MultVAE(hidden_dims=(8,), **SMALL), hybrid)]


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for model, name in zip(models, ("binary.npz", "raw.npz"), strict=True):
        export_numpy(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def scorer(files):
    return numpy_scorer.load(files / "binary.npz")


def test_it_needs_neither_torch_nor_recvae(files, models, split, tmp_path):
    """One copied file, in a process that may not import anything else."""
    for path in (numpy_scorer.__file__, files / "raw.npz"):
        shutil.copy(path, tmp_path)
    rows = split.test.fold_in
    np.savez(tmp_path / "rows.npz", items=rows.indices, offsets=rows.indptr, values=rows.data)
    code = """
import sys
for name in ("torch", "scipy", "recvae", "onnx", "pyarrow", "pandas"):
    sys.modules[name] = None  # importing it is an error
import numpy, numpy_scorer
rows = numpy.load("rows.npz")
scorer = numpy_scorer.load("raw.npz")
ids, scores = scorer.recommend((rows["items"], rows["offsets"], rows["values"]), N=20)
numpy.savez("answer.npz", ids=ids, scores=scores, raw=scorer.item_ids[ids])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    answer = np.load(tmp_path / "answer.npz", allow_pickle=True)
    ids, scores = models[1].recommend(np.arange(rows.shape[0]), rows, N=20)
    np.testing.assert_allclose(answer["scores"], scores, rtol=1e-5, atol=1e-5)
    assert (answer["ids"] == ids).mean() > 0.99
    assert (answer["raw"] == split.items[answer["ids"]]).all()


def test_it_imports_numpy_and_the_standard_library():
    for node in ast.walk(ast.parse(Path(numpy_scorer.__file__).read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {name.split(".")[0] for name in names} <= {"numpy", *sys.stdlib_module_names}


def test_histories_in_either_form(scorer, models, split):
    rows = split.test.fold_in
    ids, scores = models[0].recommend(np.arange(rows.shape[0]), rows, N=10)
    lists = [row.indices.tolist() for row in rows]
    for histories in (lists, [tuple(one) for one in lists], (rows.indices, rows.indptr)):
        found, found_scores = scorer.recommend(histories, 10)
        assert (found.dtype, found_scores.dtype) == (np.int32, np.float32)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-5, atol=1e-5)
        assert (found == ids).mean() > 0.99


def test_order_repetition_and_zeros_do_not_matter(scorer, files):
    plain = scorer.recommend([[3, 8]], 5)
    assert scorer.recommend([[8, 3, 8]], 5)[0].tolist() == plain[0].tolist()
    events = (np.array([8, 5, 3], np.uint64), [0, 3], [2.0, 0.0, 7.0])
    assert scorer.recommend(events, 5)[0].tolist() == plain[0].tolist()
    raw = numpy_scorer.load(files / "raw.npz")
    summed = raw.recommend(([3, 8], [0, 2], [1.0, 5.0]), 5)
    for part, other in zip(raw.recommend(([8, 3, 8], [0, 3], [2, 1, 3]), 5), summed, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-6)


def test_what_a_user_has_stays_out_unless_wanted(scorer):
    ids, scores = scorer.recommend([[3, 8], []], 90)
    assert {3, 8} & set(ids[0].tolist()) == set()
    assert sorted(ids[0, :78].tolist()) == [item for item in range(80) if item not in (3, 8)]
    assert (ids[0, 78:] == -1).all()
    assert (scores[0, 78:] == WORST).all()
    assert sorted(ids[1, :80].tolist()) == list(range(80))
    ids, scores = scorer.recommend([[3, 8]], 80, filter_seen=False)
    assert sorted(ids[0].tolist()) == list(range(80))
    assert (np.diff(scores) <= 0).all()


def test_users_in_blocks_are_scored_as_at_once(scorer, split, monkeypatch):
    rows = split.test.fold_in
    at_once = scorer.recommend((rows.indices, rows.indptr), 10)[1]
    monkeypatch.setattr(numpy_scorer, "BLOCK", 7 * 80)
    np.testing.assert_allclose(scorer.recommend((rows.indices, rows.indptr), 10)[1], at_once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("histories", "sentence"),
    [
        ([3, 8], r"a list of columns for each user; for one user, \[\[3, 8, 21\]\]"),
        ([[0.5]], "integers as columns"),
        ([["3"]], "integers as columns"),
        ([[80]], "columns from 0 to 79, got 80 to 80"),
        ([[-1, 4]], "columns from 0 to 79, got -1 to 4"),
        (([1], [0, 1], [1], [1]), "got 4 parts"),
        (([1, 2], [0, 1]), "offsets that climb from 0 to 2"),
        (([1, 2], [0, 3, 2]), "offsets that climb from 0 to 2"),
        (([1, 2], [1, 2]), "offsets that climb from 0 to 2"),
        ((np.array([1, 2], np.uint64), np.array([0, 2, 1, 2], np.uint64)), "offsets that climb from 0 to 2"),
        ((np.array([2**64 - 1], np.uint64), [0, 1]), "columns from 0 to 79, got 18446744073709551615"),
        (([1, 2], []), "offsets that climb from 0 to 2"),
        (([1, 2], [0, 2], [1.0]), r"2 numbers as values, got float64 of shape \(1,\)"),
        (([1], [0, 1], [-1.0]), "got -1"),
        (([1], [0, 1], [np.nan]), "got nan"),
        (([1], [0, 1], [1e20]), "zero or from 1e-15 to 1e"),
    ],
    ids=str,
)
def test_what_it_refuses(scorer, histories, sentence):
    with pytest.raises(ValueError, match=sentence):
        scorer.recommend(histories)


@pytest.mark.parametrize("kind", [np.uint8, np.uint32, np.uint64, np.int8, np.int64])
def test_integers_of_any_type_are_taken(scorer, kind):
    given = np.array([3, 8, 21], kind), np.array([0, 2, 3, 3], kind)
    for found, expected in zip(scorer.recommend(given), scorer.recommend([[3, 8], [21], []]), strict=True):
        assert found.tolist() == expected.tolist()


def test_values_are_needed_where_they_are_read(files):
    with pytest.raises(ValueError, match='the model reads values, as "raw"'):
        numpy_scorer.load(files / "raw.npz").recommend([[3]])


@pytest.mark.parametrize("N", [0, -1, 2.5, True])
def test_n_is_a_whole_number(scorer, N):
    with pytest.raises(ValueError, match="N to be an integer of at least 1"):
        scorer.recommend([[3]], N)


# files that are no good ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binary.npz", "raw.npz"])
def test_any_cut_is_noticed_and_no_flipped_bit_changes_a_list(name, files, tmp_path):
    content = (files / name).read_bytes()
    damaged = tmp_path / "damaged.npz"
    for size in (0, 10, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match=r"Expected a file of recvae\.serving\.export\.export_numpy, got .*damaged\.npz"
        ):
            numpy_scorer.load(damaged)
    history = ([3, 8], [0, 2], [1.0, 2.0])
    expected = numpy_scorer.load(files / name).recommend(history)[0].tolist()
    random, noticed = np.random.default_rng(0), 0
    for place in random.integers(0, len(content), 200).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        damaged.write_bytes(flipped)
        try:
            assert numpy_scorer.load(damaged).recommend(history)[0].tolist() == expected
        except ValueError:
            noticed += 1
    assert noticed > 150  # others are times of files in the archive and the like


def rewritten(files, tmp_path, arrays=(), **changes):
    """The file of a sparse path with another description, or other arrays."""
    with np.load(files / "raw.npz") as archive:
        content = dict(archive)
    about = json.loads(content["description"].tobytes()) | changes
    content |= {"description": np.frombuffer(json.dumps(about).encode(), np.uint8)} | dict(arrays)
    np.savez(tmp_path / "other.npz", **content)
    return tmp_path / "other.npz"


def test_rewriting_by_itself_is_no_damage(files, tmp_path):
    assert numpy_scorer.load(rewritten(files, tmp_path)).n_items == 80


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"n_items": 79},
        {"item_ids": [1]},
        {"steps": []},
        {"steps": [["h", "eval", ["first"]]]},
        {"steps": [["h", "silu", ["first", "first"]]]},
        {"steps": [["last.weight", "silu", ["first"]]]},
        {"steps": [["h", "silu", [["first"]]]]},
        {"steps": [["h", "cat", [["first"] * 10**5, 1]]]},
        {"steps": [["h", "add", ["first", "first.weight"]]]},
        {"steps": [["h", "add", [[1], [2]]]]},
        {"steps": [["h", "chunk", ["first", 10**9, 1]]]},
        {"steps": [["h", "getitem", ["first.weight", None]]]},
        {"steps": [["h", "clamp_min", ["first", 10**400]]]},
        {"steps": [[f"h{n}", "silu", ["first"]] for n in range(10**5)]},
        {"steps": [[f"h{n}", "cat", [[f"h{n - 1}" if n else "first"] * 2, 1]] for n in range(40)]},
        {"hidden": "first.weight"},
        {"hidden": None},
        {"path_weight": "1"},
        {"path_weight": float("nan")},
        {"path_weight": 10**400},
        {"n_items": 10**12, "item_ids": None},
        {"n_items": 10**400, "item_ids": None},
        {"n_items": True},
        {"values": "eval"},
        {"item_ids": ["a"] * 80},
        {"item_ids": [0.5, *range(79)]},
        {"item_ids": [10**400, *range(79)]},
        {"arrays": {"first.weight": np.ones((80, 8), np.complex64)}},
        {"arrays": {"first.bias": np.ones(8, bool)}},
        {"arrays": {"first.bias": np.ones((8, 1), np.float32)}},
        {"arrays": {"last.bias": np.full(80, -np.inf, np.float32)}},
        {"arrays": {"path.indptr": np.array([0, 2**62, *[-(2**62)] * 78, 0])}},
        {"arrays": {"path.indptr": np.zeros(81, np.uint64)}},
        {"arrays": {"last.weight": np.ones((80, 3), np.float32)}},
        {"arrays": {"first.weight": np.ones((79, 8), np.float32)}},
        {"arrays": {"last.bias": np.full(80, np.nan, np.float32)}},
        {"arrays": {"path.indptr": np.zeros(81, np.int64)}},
        {"arrays": {"path.indices": np.full(0, 80, np.int32)}},
        {"arrays": {"last.weight": np.array([[object()] * 8] * 80)}},
    ],
    ids=lambda changes: " ".join([*changes, *changes.get("arrays", ())]),
)
def test_parts_that_do_not_fit(changes, files, tmp_path):
    with pytest.raises(ValueError, match="which is damaged or another"):
        numpy_scorer.load(rewritten(files, tmp_path, **changes))


def test_steps_that_would_take_memory_are_refused_before_they_do(files, tmp_path):
    doubled = [[f"h{n}", "cat", [[f"h{n - 1}" if n else "first"] * 2, 1]] for n in range(40)]
    path = rewritten(files, tmp_path, steps=doubled)
    with PeakMemory() as memory:
        before = psutil.Process().memory_info().rss / 2**20
        with pytest.raises(ValueError, match="steps take more than"):
            numpy_scorer.load(path)
    assert memory.mib < before + 100


def test_archives_that_unpack_to_more_than_they_are(files, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("first.weight.npy", bytes(10**7))
    with pytest.raises(ValueError, match="its arrays would take more than the file has"):
        numpy_scorer.load(tmp_path / "bomb.npz")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": NaN}', "9" * 5000, "\x00"])
def test_descriptions_that_are_no_json(files, tmp_path, text):
    np.savez(tmp_path / "other.npz", description=np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(ValueError, match="which is damaged or another") as said:
        numpy_scorer.load(tmp_path / "other.npz")
    assert str(said.value).isprintable()


def test_scores_that_overflow_are_no_lists(files, tmp_path):
    large = {"last.weight": np.full((80, 8), 3e38, np.float32), "first.bias": np.ones(8, np.float32)}
    with pytest.raises(ValueError, match="finite"), np.errstate(all="ignore"):
        numpy_scorer.load(rewritten(files, tmp_path, arrays=large)).recommend(([3, 8], [0, 2], [1.0, 2.0]))


def test_files_of_others(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("description.npy", "no array")
    for name in ("other.npz", "text.npz", "zip.npz"):
        with pytest.raises(ValueError, match=f"got .*{name}, which is damaged or another"):
            numpy_scorer.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        numpy_scorer.load(tmp_path / "nowhere.npz")
