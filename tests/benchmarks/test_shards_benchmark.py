"""What the benchmark of shards measures: the raw files are as promised, and the measured processes do what they say."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks.scale.shards
from benchmarks.scale.shards import run_shards, shards_table, write_raw

pytest.importorskip("duckdb")


@pytest.mark.parametrize("text", [False, True])
def test_raw_files(text, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.scale.shards.ROWS_OF_A_FILE", 3000)
    write_raw(tmp_path / "raw", 7000, text)
    assert len(list((tmp_path / "raw").glob("*.parquet"))) == 3
    table = pq.read_table(tmp_path / "raw")
    assert len(table) == 7000
    assert str(table.schema.field("user").type) == ("string" if text else "int64")
    assert 80 < len(table["user"].unique()) <= 140
    _, counts = np.unique(table["item"].to_numpy(zero_copy_only=False), return_counts=True)
    assert counts.max() > 3 * np.median(counts)
    before = {path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()}
    write_raw(tmp_path / "raw", 7000, text)  # once
    assert {path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()} == before


def test_each_case(tmp_path, monkeypatch, capsys):
    def here(script, *arguments):
        monkeypatch.setattr("sys.argv", ["-c", *arguments])
        capsys.readouterr()
        monkeypatch.setattr("sys.exit", [].append)
        exec(script, {})
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(benchmarks.scale.shards, "_run", here)
    saved = []
    results = run_shards(20_000, tmp_path, lambda found: saved.append(len(found["cases"])))
    assert saved == [1, 2, 3]
    assert [case["pass"]["users"] for case in results["cases"][:2]] == [results["cases"][0]["pass"]["users"]] * 2
    for case in results["cases"]:
        assert case["write"]["peak_mib"] > 50
        assert case["pass"]["events"] > 5000
        assert case["pass"]["users_per_second"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw-numbers-20000", "raw-text-20000"]
    table = shards_table(results).splitlines()
    assert table[0] == "| 20,000 rows | " + " | ".join(case["what"] for case in results["cases"]) + " |"
    assert len(table) == 10
