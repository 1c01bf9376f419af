"""The blocked inverse against a library's, on any number of cores."""

import numpy as np
import pytest
import torch

from recvae.utils import linalg
from recvae.utils.linalg import invert_definite
from recvae.utils.workers import Workers


def definite(n, dtype=torch.float64, seed=0):
    factor = torch.randn(n, n + 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return factor @ factor.T + n * torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("n", [1, 2, 16, 17, 33, 64, 100])
def test_it_is_the_inverse_and_its_diagonal_that_of_the_factor(n, monkeypatch):
    monkeypatch.setattr(linalg, "BLOCK", 16)
    matrix = definite(n)
    inverse = matrix.clone()
    diagonal = invert_definite(inverse)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(diagonal, np.diag(np.linalg.cholesky(matrix)), rtol=1e-10)
    assert torch.equal(inverse, inverse.T)


def test_only_the_lower_triangle_is_read(monkeypatch):
    monkeypatch.setattr(linalg, "BLOCK", 16)
    matrix = definite(50)
    full, half = matrix.clone(), matrix.tril()
    invert_definite(full)
    invert_definite(half)
    assert torch.equal(full, half)


def test_it_is_the_same_bit_for_bit_on_any_number_of_cores(monkeypatch):
    monkeypatch.setattr(linalg, "BLOCK", 64)
    results = []
    for cores in (1, 2, 3):
        matrix = definite(300, torch.float32)
        with Workers(cores):
            invert_definite(matrix)
        results.append(matrix)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("at", [0, 20, 49])
def test_a_matrix_that_is_not_definite_is_refused(at, monkeypatch):
    monkeypatch.setattr(linalg, "BLOCK", 16)
    matrix = definite(50)
    matrix[at, at] = -1
    assert invert_definite(matrix) is None
