"""Data sets by name: their TOML cards, downloads and parsers."""
