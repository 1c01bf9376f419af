"""Measurements: ours against references and peers. Results are recorded in results/*.json."""
