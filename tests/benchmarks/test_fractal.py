"""Fractal expansions: as large as was asked for, each block from its seed alone, and like the data they come of."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

import recvae
from benchmarks.__main__ import main
from benchmarks.scale.expansion import GROUP_SIZE, MIN_EVENTS, _kept, _resized, block_row, expand, group_similar
from benchmarks.scale.fractal import fractal_table, gini, likeness, read_events, scattered, write_events
from recvae.errors import InvalidParameterError

SIZES = (10_000, 2_000, 400_000)  # 4 x 4 blocks of the sample, those at the ends cut


@pytest.fixture(scope="module")
def real():
    matrix = recvae.load_dataset("sample").matrix
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)


@pytest.fixture(scope="module")
def expansion(real):
    return expand(real, *SIZES)


@pytest.fixture(scope="module")
def made(expansion):
    return sparse.vstack([block_row(expansion, row) for row in range(expansion.n_rows)], format="csr")


def test_sizes(expansion, made):
    assert expansion.probabilities.shape == (4, 4)
    assert made.shape == SIZES[:2]
    assert made.nnz == pytest.approx(SIZES[2], rel=0.02)
    assert np.diff(made.indptr).min() >= MIN_EVENTS
    assert (made.data == 1).all()
    assert made.has_canonical_format  # ascending, and no item twice


def test_a_target_that_blocks_cannot_spread_evenly_is_met_all_the_same(real):
    dense = expand(real, 3500, 700, 125_000)
    assert (dense.probabilities == 1).any()
    assert sum(block_row(dense, row).nnz for row in range(dense.n_rows)) == pytest.approx(125_000, rel=0.02)


def test_each_block_has_as_many_events_as_were_expected(real, expansion, made):
    m, n = real.shape
    for row, wanted in enumerate(expansion.expected):
        users = made[row * m : (row + 1) * m]
        found = np.bincount(users.indices // n, minlength=4)
        assert (found >= wanted - 5 * np.sqrt(wanted)).all()
        assert (found <= wanted + 5 * np.sqrt(wanted) + 0.02 * users.nnz).all()  # some were filled up


def test_rows_of_blocks_come_in_any_order_and_follow_from_the_seed(real, expansion, made):
    again = expand(real, *SIZES)
    for row in (3, 0):
        users = expansion.users_of(row)
        assert (block_row(again, row) != made[users.start : users.stop]).nnz == 0
    other = block_row(expand(real, *SIZES, seed=1), 3)
    assert (other != made[9000:]).nnz > other.nnz / 2


def test_no_block_is_a_copy_and_users_stay_as_active(real, expansion, made):
    m, n = real.shape
    first, below, beside = made[:m, :n], made[m : 2 * m, :n], made[:m, n : 2 * n]
    p, q = expansion.probabilities[:2, 0]
    assert first.multiply(below).sum() < 0.5 * p * q * real.nnz  # of two copies
    activity = [np.diff(block.tocsr().indptr) for block in (first, beside)]
    popularity = [np.bincount(block.tocsr().indices, minlength=n) for block in (first, below)]
    assert np.corrcoef(activity)[0, 1] > 0.5
    assert np.corrcoef(popularity)[0, 1] > 0.9


def test_the_expansion_is_like_the_real_data(real, made):
    one, other = likeness(real), likeness(made)
    for name, most in {"user_gini": 0.05, "item_gini": 0.05}.items():
        assert other[name] == pytest.approx(one[name], abs=most), name
    spectra = [np.array(each["singular_values"]) / each["singular_values"][0] for each in (one, other)]
    np.testing.assert_allclose(spectra[1][:5], spectra[0][:5], atol=0.15)
    typical = [np.array(each["user_quantiles"])[2:5] / each["events"] * each["users"] for each in (one, other)]
    np.testing.assert_allclose(*typical, rtol=0.25)  # of the mean


def test_what_cannot_be_reached_is_refused(real):
    for sizes in ((0, 600, 100), (3000 * 3000 + 1, 600, 100), (3000, 19, 100), (3000, 600 * 600 + 1, 100)):
        with pytest.raises(InvalidParameterError, match="Expected 1 to 9,000,000 users and 20 to 360,000 items"):
            expand(real, *sizes)
    for events in (0, 10**9):
        with pytest.raises(InvalidParameterError, match=r"Expected 1 to [\d,]+ events for these users and items, got"):
            expand(real, 3000, 600, events)


@pytest.mark.parametrize("n", [3, 8, 100, 601])
def test_groups_of_similar_users(n):
    random = np.random.default_rng(0)
    counts, vectors = random.integers(1, 100, n), random.standard_normal((n, 5))
    groups = group_similar(counts, vectors, random)
    assert np.bincount(groups.groups).max() <= GROUP_SIZE
    group_of = np.empty(n, int)
    group_of[groups.members] = groups.groups
    group_at = np.empty(n, int)
    group_at[groups.positions] = groups.groups
    draws = np.array([groups.shuffled(random) for _ in range(2000)])
    assert (group_at[draws] == group_of).all()
    assert (np.sort(draws) == np.arange(n)).all()
    assert (group_at[groups.fixed()] == group_of).all()
    np.testing.assert_allclose((draws < n // 2).mean(0), groups.probability_below(n // 2), atol=0.06)
    if n == 601:  # groups are of like activity
        means = np.bincount(group_of, counts) / np.bincount(group_of)
        assert np.std(counts - means[group_of]) < 0.3 * np.std(counts)


def test_things_are_kept_each_with_its_probability():
    random = np.random.default_rng(0)
    assert (_kept(50, 1.0, random) == np.arange(50)).all()
    assert len(_kept(50, 0.0, random)) == 0
    found = np.zeros(50)
    for _ in range(2000):
        kept = _kept(50, 0.3, random)
        assert len(np.unique(kept)) == len(kept)
        found[kept] += 1
    np.testing.assert_allclose(found / 2000, 0.3, atol=5 * np.sqrt(0.21 / 2000))


def test_resized_vectors_are_orthonormal_and_point_where_the_long_ones_did():
    long = np.linalg.qr(np.stack([np.ones(90), np.arange(90) - 44.5, np.sin(np.arange(90))], axis=1))[0]
    short = _resized(long, 13)
    np.testing.assert_allclose(short.T @ short, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(short[:, 0], np.sign(long[0, 0]) / np.sqrt(13), atol=1e-12)
    assert (np.diff(short[:, 1]) * np.diff(long[:2, 1]) > 0).all()


def test_figures_of_likeness_in_closed_form():
    assert gini(np.full(7, 3)) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    dense = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    np.testing.assert_allclose(
        likeness(sparse.csr_matrix(dense))["singular_values"], np.linalg.svd(dense)[1][:20], rtol=1e-3
    )


@pytest.mark.parametrize("n", [1, 2, 10, 997, 1000])
def test_scattered_numbers(n):
    found = scattered(np.arange(n), n)
    assert (np.sort(found) == np.arange(n)).all()
    assert n < 10 or np.abs(np.diff(found)).min() > n / 4


def test_files(expansion, made, tmp_path):
    folder = tmp_path / "events"
    write_events(expansion, folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"part-{row:05}.parquet" for row in range(4)]
    table = pq.read_table(folder / "part-00001.parquet")
    assert table.schema.types == ["int64", "int64"]
    assert (np.diff(table["user"].to_numpy()) != 0).mean() > 0.9
    written = read_events(folder, expansion.shape)
    ids = [scattered(np.arange(n), n) for n in expansion.shape]
    assert (written[ids[0]][:, ids[1]] != made).nnz == 0
    assert recvae.Interactions.read(folder).n_events == made.nnz
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InvalidParameterError, match="Expected an empty folder for the events"):
        write_events(expansion, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_events(expansion, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


def test_the_command(tmp_path, capsys):
    sizes = ["--users", "4000", "--items", "900", "--events", "120000", "--dataset", "sample"]
    assert main(["fractal", *sizes, "--folder", str(tmp_path / "events"), "--out", str(tmp_path / "out.json")]) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["expansion"]["users"] == 4000
    assert results["blocks"] == [2, 2]
    assert results["peak_mib"] > 50
    assert capsys.readouterr().out.strip() == fractal_table(results)
    assert "| users | 3,000 | 4,000 |" in fractal_table(results)
    assert "| users | 3,000 | 4,000 | 4,000 |" in fractal_table(results, results)
    assert main(["fractal", *sizes, "--seed", "1", "--folder", str(tmp_path / "events")]) == 2
    assert "Expected an empty folder for the events" in capsys.readouterr().err
