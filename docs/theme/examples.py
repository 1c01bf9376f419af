"""The examples are next to `docs/`: the site gets a copy, to which its links lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[2] / "examples"


def on_files(files: Files, config: Any) -> Files:
    """Add the examples to what is copied."""
    for path in sorted(EXAMPLES.glob("*.*")):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are on disk become those of the site; one to the folder has no page."""
    return markdown.replace("](../examples/", "](examples/").replace("[examples/](../examples)", "`examples/`")
