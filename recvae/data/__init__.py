"""Interactions: a CSR matrix and two id arrays; how they are read, checked, split and cut into batches."""
