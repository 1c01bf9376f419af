"""Data sets by name: a TOML card for each, its download and its parser."""
