"""Whether integers in a text file are all written as Arrow would write them, so that it may parse them as integers.

Arrow reads 007, 0x7 and " 7" as 7; as ids, these are text.
"""

from __future__ import annotations

import codecs
import re


class Spelling:
    """Looks at blocks of whole lines; `is_plain` turns False at a field that begins with 0 and a digit, or has blanks.

    Parameters
    ----------
    delimiter : bytes
        One byte.
    quote : bytes
        One byte; empty without quotes.
    """

    def __init__(self, delimiter: bytes, quote: bytes) -> None:
        self.is_plain = True
        edges = [edge for edge in (delimiter, b"\n", b"\r", quote) if edge]
        self._zeros = [(edge + b"0", re.compile(re.escape(edge) + rb"0[0-9xX]")) for edge in edges]
        blanks = [blank for blank in (b" ", b"\t") if blank != delimiter]
        self._never = [part for edge in edges for blank in blanks for part in (edge + blank, blank + edge)]
        self._never += [edge + b"-0" for edge in edges]

    def look(self, block: bytes) -> None:
        """Look at the next block."""
        if not self.is_plain or not block:
            return
        block = b"\n" + block.removeprefix(codecs.BOM_UTF8)
        self.is_plain = not any(part in block for part in self._never) and not any(
            start in block and pattern.search(block) for start, pattern in self._zeros
        )
