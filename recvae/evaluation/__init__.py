"""Metrics of rankings, the evaluator that computes them, and tests of significance."""
