"""An extension of the API pages: attributes without a docstring of their own have none.

What is inspected rather than parsed has the docstring of its value's type, such as that of `int`.
"""

from __future__ import annotations

from typing import Any

import griffe


class OwnDocstrings(griffe.Extension):
    """Removes the docstrings that attributes have from the types of their values."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.is_attribute and "property" not in obj.labels:
            obj.docstring = None
