"""Serving: lists for very many users, exported models, re-ranking."""
