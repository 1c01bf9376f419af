"""Accuracy against references, papers and tuned baselines."""
