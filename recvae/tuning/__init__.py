"""Choosing hyper-parameters on validation users."""
