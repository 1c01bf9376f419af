import numpy as np
import pytest
from scipy import sparse

from recvae.data.rows import ParameterWarning, check_rows, transform_values
from recvae.errors import InvalidDataError, InvalidTypeError, UnknownNameError


def test_rows_become_canonical_and_the_argument_stays():
    messy = sparse.csr_matrix(([1.0, 2.0, 0.0, 3.0], [2, 2, 0, 1], [0, 3, 4]), shape=(2, 3))
    rows = check_rows(messy)
    assert rows.toarray().tolist() == [[0, 0, 3], [0, 3, 0]]
    assert rows.nnz == 2
    assert messy.nnz == 4
    assert messy.indices.tolist() == [2, 2, 0, 1]


def test_the_argument_stays_even_where_values_are_dropped():
    wide = sparse.csr_matrix(np.arange(1.0, 13).reshape(3, 4))
    wide.data[::3] = 0
    before = wide.copy()
    assert check_rows(wide).nnz == 8
    for one, other in zip(
        (wide.data, wide.indices, wide.indptr), (before.data, before.indices, before.indptr), strict=True
    ):
        assert (one == other).all()


def test_read_only_arrays_and_64_bit_indices():
    rows = sparse.csr_matrix(np.eye(3))
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    for array in (rows.data, rows.indices, rows.indptr):
        array.flags.writeable = False
    assert check_rows(rows).toarray().tolist() == np.eye(3).tolist()


def test_one_row_of_a_csr_array_is_a_matrix_of_one_row():
    row = sparse.csr_array(np.array([[0, 1, 2]]))[0]
    assert row.ndim == 1
    assert check_rows(row, 3).toarray().tolist() == [[0, 1, 2]]


def test_other_formats_are_converted_only_where_that_is_wanted():
    with pytest.raises(InvalidDataError, match="needs to be a CSR sparse matrix, got csc"):
        check_rows(sparse.csc_matrix(np.eye(2)))
    with pytest.warns(ParameterWarning, match="coo"):
        assert check_rows(sparse.coo_matrix(np.eye(2)), convert=True).format == "csr"


@pytest.mark.parametrize("thing", [np.eye(2), [[1.0]], None])
def test_dense_is_refused(thing):
    with pytest.raises(InvalidTypeError, match="needs to be a CSR sparse matrix, got"):
        check_rows(thing)


def test_width_and_content_are_checked():
    with pytest.raises(InvalidDataError, match="Expected 5 columns, one for each item, got 2"):
        check_rows(sparse.csr_matrix(np.eye(2)), 5)
    for value, message in ((-2.0, "zero or more, got -2"), (np.nan, "got nan"), (np.inf, "got inf")):
        with pytest.raises(InvalidDataError, match=message):
            check_rows(sparse.csr_matrix([[1.0, value]]))
    for value in (1e20, 1e-20):
        with pytest.raises(InvalidDataError, match=r"from 1e-15 to 1e\+15, got .*; scale them first"):
            check_rows(sparse.csr_matrix([[1.0, value]]))
    with pytest.raises(InvalidDataError, match="numbers as values, got complex"):
        check_rows(sparse.csr_matrix([[1j]]))


def test_the_three_readings_of_values():
    rows = sparse.csr_matrix([[0.0, 1.0, 352698.0]], dtype=np.float32)
    assert transform_values(rows, "binary").data.tolist() == [1, 1]
    assert transform_values(rows, "raw").data.tolist() == [1, 352698]
    np.testing.assert_allclose(transform_values(rows, "log1p").data, np.log([2, 352699]), rtol=1e-6)
    assert rows.data.tolist() == [1, 352698]
    with pytest.raises(UnknownNameError, match="did you mean log1p"):
        transform_values(rows, "log")
