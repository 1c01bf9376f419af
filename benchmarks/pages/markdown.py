"""Tables as Markdown."""

from __future__ import annotations


def markdown(rows: list[list[str]]) -> str:
    """Format rows of cells as a Markdown table; the first row is the header."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])
