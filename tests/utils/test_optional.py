"""Optional libraries: imported, or a sentence that says how to install them."""

from __future__ import annotations

import sys

import pytest

from recvae.errors import MissingDependencyError
from recvae.utils.optional import require


def test_a_library_that_is_installed_is_returned():
    assert require("json.decoder", extra="x", purpose="A test") is sys.modules["json.decoder"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("import no_such_library", r"A test needs the library no_such_library, which is not installed; run: "),
        ("raise ImportError('no libcuda')", r"A test needs the library broken, which cannot be loaded \(no libcuda\)"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(content, sentence, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match=sentence) as raised:
        require("broken", extra="large", purpose="A test")
    assert str(raised.value).endswith('pip install "recvae[large]"')
    assert isinstance(raised.value, ImportError)
