"""A small run of the benchmark of rules."""

from benchmarks.scale.rules import rules_table, run_rules


def test_a_small_run():
    results = run_rules(60, 80, 1, 40)
    assert results["deny"]["events"] == 60 * 20
    assert results["jsonl"]["rows"] == 40 * 10
    assert results["jsonl"]["peak_mib"] > 10
    assert "lists for 60 users" in rules_table(results)
