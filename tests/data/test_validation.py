"""Sparse matrices whose arrays lie are refused before compiled code follows them."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import recvae
from recvae.data.rows import check_rows
from recvae.data.validation import check_arrays, checked_sparse, row_of
from recvae.errors import InvalidDataError, InvalidTypeError, RecvaeError
from recvae.models.baselines import ALS, BPR, LMF, ItemKNN

N_ITEMS = 8
FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")
FAR = 10**9

# offsets of four rows that lead outside: scipy's own check passes the first, and its differences wrap in the others
LYING_OFFSETS = {
    "ends at 0": ([0, FAR, 0, 0, 0], np.int32),
    "ends below 0": ([0, FAR, 5, 9, -1], np.int32),
    "wraps in 32 bits": ([0, 2**31 - 1, -2, 5, 32], np.int32),
    "wraps in 64 bits": ([0, 2**63 - 1, -2, 5, 32], np.int64),
    "unsigned": ([0, 30, 2, 5, 32], np.uint32),
    "unsigned 64": ([0, 2**63 + 5, 2**63 + 6, 2**63 + 7, 32], np.uint64),
    "begins above 0": ([1, 2, 3, 4, 5], np.int32),
    "beyond the end": ([0, 1, 2, 3, 33], np.int32),
    "too few": ([0, 1, 2], np.int32),
    "floats": ([0.0, 1.0, 2.0, 3.0, 4.0], np.float64),
}


def with_offsets(name: str) -> sparse.csr_matrix:
    offsets, kind = LYING_OFFSETS[name]
    matrix = sparse.csr_matrix((4, N_ITEMS), dtype=np.float32)
    matrix.indptr = np.array(offsets, dtype=kind)
    matrix.indices, matrix.data = np.zeros(32, np.int32), np.ones(32, np.float32)
    return matrix


@pytest.fixture(scope="module")
def model() -> recvae.EASE:
    return recvae.EASE(l2=1.0).fit(sparse.csr_matrix(np.ones((4, N_ITEMS))))


@pytest.mark.parametrize("name", LYING_OFFSETS)
def test_offsets_that_lead_outside_are_refused_by_every_verb(model, name):
    rows = with_offsets(name)
    verbs = {
        "fit": lambda: recvae.EASE().fit(rows),
        "recommend": lambda: model.recommend(range(4), rows),
        "score": lambda: model.score(rows),
        "items": lambda: model.recommend(range(4), sparse.csr_matrix((4, N_ITEMS)), items=rows),
        "filter_items": lambda: model.recommend(range(4), sparse.csr_matrix((4, N_ITEMS)), filter_items=rows),
        "from_matrix": lambda: recvae.Interactions.from_matrix(rows),
    }
    for verb in verbs.values():
        with pytest.raises(InvalidDataError, match="damaged: "):
            verb()


@pytest.mark.parametrize("indptr", [[0, 2**30, 5, 9, 32], [0, -5, 5, 9, 32], [0, 33, 33, 33, 33]])
def test_explain_reads_the_row_of_its_user_alone(model, indptr):
    rows = with_offsets("too few")
    rows.indptr = np.array(indptr)
    with pytest.raises(InvalidDataError, match="damaged: row 0"):
        model.explain(0, rows, 1)
    whole = sparse.csr_matrix(np.eye(N_ITEMS))
    assert model.explain(3, whole, 1) == model.explain(0, whole[3], 1)
    assert row_of(whole, 3).toarray().tolist() == whole[3].toarray().tolist()


def lying(form: str) -> sparse.spmatrix:
    """A matrix of a format with one index far outside, set behind the back of its constructor."""
    matrix = sparse.csr_matrix(np.ones((4, N_ITEMS), np.float32)).asformat(form)
    if form in ("csr", "csc", "bsr"):
        matrix.indices[-1] = 2**30
    elif form == "coo":
        matrix.coords[1][-1] = 2**30
    elif form == "lil":
        matrix.rows[1] = [2**30]
        matrix.data[1] = [1.0]
    elif form == "dok":
        matrix._dict[(0, 2**30)] = 1.0
    return matrix


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "dia"])
def test_indices_outside_are_refused_in_every_format(form):
    matrix = lying(form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the conversion
        for verb in (recvae.EASE().fit, recvae.Interactions.from_matrix):
            with pytest.raises(InvalidDataError, match="damaged"):
                verb(matrix)


@pytest.mark.parametrize("kind", [sparse.dia_matrix, sparse.dia_array])
@pytest.mark.parametrize(
    ("offsets", "data"),
    [
        ([0, 0], np.ones((2, 3))),
        ([0], np.ones((2, 3))),
        ([0, 1, 2], np.ones((2, 3))),
        ([0, 1], np.ones(3)),
        ([0.0, 1.0], np.ones((2, 3))),
        ([[0, 1]], np.ones((2, 3))),
    ],
)
def test_diagonals_that_do_not_fit_each_other_are_refused(kind, offsets, data):
    matrix = kind(np.eye(3))
    matrix.offsets, matrix.data = np.array(offsets), data
    with pytest.raises(InvalidDataError, match="diagonals at"):
        recvae.Interactions.from_matrix(matrix)


@pytest.mark.parametrize("far", [2**62, -(2**62), 2**32 + 1, -(2**32) - 1, 3, -3])
def test_diagonals_outside_of_a_matrix_are_not_in_it(far):
    matrix = sparse.dia_matrix(np.eye(3))
    matrix.offsets, matrix.data = np.array([far, 0]), np.array([[7.0, 7, 7], [1, 2, 3]])
    assert checked_sparse(matrix).toarray().tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    assert matrix.offsets.tolist() == [far, 0]


@pytest.mark.parametrize("kind", [object, np.complex64])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dia"])
def test_values_that_are_no_real_numbers_are_refused(kind, form):
    matrix = sparse.csr_matrix(np.eye(3)).asformat(form)
    matrix.data = matrix.data.astype(kind)
    for verb in (recvae.Interactions.from_matrix, checked_sparse):
        with pytest.raises(InvalidDataError, match="Expected numbers as values, got"):
            verb(matrix)


def test_rows_of_a_lil_matrix_have_as_many_values_as_columns():
    matrix = sparse.lil_matrix(np.eye(3))
    matrix.data[0] = [1.0] * 10_000
    with pytest.raises(InvalidDataError, match="other numbers of columns"):
        recvae.Interactions.from_matrix(matrix)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
def test_sound_matrices_of_every_format_pass_unchanged(form, kind):
    dense = np.where(np.random.default_rng(0).random((6, N_ITEMS)) < 0.4, 2.0, 0.0)
    matrix = kind(dense).asformat(form)
    assert checked_sparse(matrix).tocsr().toarray().tolist() == dense.tolist()
    assert matrix.toarray().tolist() == dense.tolist()


def test_a_one_dimensional_array_is_one_row():
    for row in (sparse.coo_array(np.array([0.0, 1.0, 2.0])), sparse.csr_array(np.array([[0.0, 1.0, 2.0]]))[0]):
        assert check_rows(row, 3).toarray().tolist() == [[0, 1, 2]]
    row = sparse.coo_array(np.array([0.0, 1.0, 2.0]))
    row.coords[0][0] = 2**30
    with pytest.raises(InvalidDataError, match="damaged"):
        check_rows(row, 3)


def test_what_lies_behind_the_last_offset_stays_with_the_caller():
    matrix = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.indices, matrix.data = np.append(matrix.indices, [7, 7]), np.append(matrix.data, [np.nan, 9])
    assert check_rows(matrix).toarray().tolist() == np.eye(3).tolist()
    assert (len(matrix.indices), len(matrix.data)) == (5, 5)


def test_flags_of_the_caller_are_not_believed():
    matrix = sparse.csr_matrix(([1.0, 2.0], [2, 0], [0, 2]), shape=(1, 3))
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    assert check_rows(matrix).indices.tolist() == [0, 2]


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.uint8, bool, np.longdouble, ">f4", ">i8"])
def test_values_of_every_kind_of_number(kind):
    matrix = sparse.coo_matrix(np.ones((2, 3)))
    matrix.data = matrix.data.astype(kind)
    assert check_rows(matrix.tocsr() if kind != np.float16 else _csr(matrix)).toarray().tolist() == [[1] * 3] * 2


def _csr(matrix):
    made = sparse.csr_matrix(matrix.shape)
    made.data, made.indices = matrix.data, matrix.col.astype(np.int32)
    made.indptr = np.array([0, 3, 6], dtype=np.int32)
    return made


def test_sums_of_small_integers_do_not_wrap():
    events = sparse.coo_matrix((np.array([100, 100], np.int8), ([0, 0], [1, 1])), shape=(1, 2))
    assert recvae.Interactions.from_matrix(events).matrix.toarray().tolist() == [[0, 200]]
    with pytest.warns(recvae.data.rows.ParameterWarning):
        assert check_rows(events, convert=True).toarray().tolist() == [[0, 200]]


def test_a_claim_of_many_rows_takes_no_memory():
    events = sparse.coo_matrix(np.eye(2))
    events._shape = (10**14, 2)
    with pytest.raises(RecvaeError, match="100,000,000,000,000 rows"):
        recvae.Interactions.from_matrix(events)


@given(
    st.lists(st.integers(-3, 12), min_size=4, max_size=6),
    st.lists(st.integers(-2, 6), max_size=8),
    st.integers(0, 8),
)
def test_arrays_pass_where_plain_integers_say_so(indptr, indices, n_values):
    used = indptr[-1]
    sound = (
        len(indptr) == 5
        and indptr[0] == 0
        and all(one <= other for one, other in itertools.pairwise(indptr))
        and used <= min(len(indices), n_values)
        and all(0 <= index < 5 for index in indices[: max(used, 0)])
    )
    arrays = np.ones(n_values), np.array(indices, dtype=np.int32), np.array(indptr, dtype=np.int64)
    if sound:
        check_arrays(*arrays, (4, 5))
    else:
        with pytest.raises(InvalidDataError):
            check_arrays(*arrays, (4, 5))


@pytest.mark.parametrize("ragged", [[[1], [2, 3]], [1, [2]], ((1, 2), (3,))])
def test_ragged_lists_are_refused(model, ragged):
    row = sparse.csr_matrix(np.eye(N_ITEMS)[:1])
    for verb in (
        lambda: model.recommend(0, row, items=ragged),
        lambda: model.recommend(0, row, filter_items=ragged),
        lambda: model.recommend(ragged, row),
        lambda: model.similar_items(ragged),
        lambda: model.explain(0, row, ragged),
    ):
        with pytest.raises(InvalidTypeError, match="Expected "):
            verb()


@pytest.mark.parametrize(
    "peer", [ALS(factors=2, iterations=1), BPR(factors=2, iterations=1), LMF(factors=2, iterations=1), ItemKNN()]
)
def test_read_only_rows_are_taken_by_the_baselines(peer):
    rows = sparse.csr_matrix(np.ones((5, 5), np.float32))
    for array in (rows.data, rows.indices, rows.indptr):
        array.flags.writeable = False
    peer.fit(rows, show_progress=False)
    assert peer.recommend([0, 1, 2, 3, 4], rows, filter_already_liked_items=False)[0].shape == (5, 10)
