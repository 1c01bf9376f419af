from benchmarks.speed.reading import run_reading


def test_reading_is_measured_next_to_pyarrow():
    results = run_reading(rows=2000, repeats=1, kinds="CSV, integers;CSV, text ids")
    for kind in ("CSV, integers", "CSV, text ids"):
        assert 0 < results[kind]["pairs"] <= 2000
        assert results[kind]["ratio"] > 0
        assert results[kind]["peak_mib"] > 10
