"""What the base of the models costs those who use one: modules that are loaded, classes that a method may come from."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from recvae import EASE, MultVAE, Recommender
from recvae.models.base.recommender import NEEDS


def test_a_closed_form_is_loaded_from_a_file_without_networks(tmp_path):
    rows = sparse.csr_matrix(np.tri(5, dtype=np.float32))
    EASE().fit(rows, show_progress=False).save(tmp_path / "model")
    code = f"import sys, recvae; recvae.EASE, recvae.load({str(tmp_path / 'model')!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "recvae.models.ease" in names
    assert not [name for name in names if name.startswith("recvae.nn")]


@pytest.mark.parametrize(("model", "most"), [(EASE, 4), (MultVAE, 6)])
def test_few_classes_stand_behind_a_model(model, most):
    assert len([cls for cls in model.__mro__ if cls.__module__.startswith("recvae.")]) <= most


def test_each_ability_is_a_method_that_follows_from_another():
    for verb, (methods, _) in NEEDS.items():
        assert callable(getattr(Recommender, verb))
        assert not any(Recommender._defines(method) for method in methods)
    assert Recommender.abilities() == frozenset()
