"""The comparison of two checkouts: its cases are models of today, and a difference is named."""

import pytest

from benchmarks.accuracy import same, same_fits
from recvae.models.base.params import flat_params


@pytest.mark.parametrize("case", same_fits.CASES)
def test_each_case_has_the_options_that_its_file_names(case):
    name, options = same_fits.CASES[case]
    if name in ("ALS", "ItemKNN", "BPR", "LMF"):
        pytest.importorskip("implicit")
    in_file = flat_params(same_fits.build(name, options))
    assert {key: in_file[key] for key in options} == options


def test_what_differs_is_named(tmp_path, monkeypatch):
    digests = {"fit": {"weights": "a", "lists": "b"}, "load": {"lists": "b"}, "ranks": {"lists by two ranks": "c"}}

    def of(checkout, arguments, threads):
        found = dict(digests[next(word for word in arguments if word in digests)])
        return found | ({"weights": "other"} if checkout.name == "after" and "weights" in found else {})

    monkeypatch.setattr(same, "_digests", of)
    monkeypatch.setattr(same, "seconds_in_turns", lambda *_: {})
    results = same.run_same(tmp_path / "before", tmp_path / "after")
    assert results["different"] == ["weights"]
    assert results["compared"] == 5
