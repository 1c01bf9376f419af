"""One self-contained HTML page of a benchmark's results, which opens from disk without network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.benchmark.results import check_results
from recvae.utils.files import check_writable, write_whole
from recvae.utils.optional import require
from recvae.utils.paths import output_path

if TYPE_CHECKING:
    from recvae.benchmark.report.view import View

PAGE = "index.html"
FOLDER = Path(__file__).parent  # of the template, the styles and the script


@dataclass(frozen=True)
class Section:
    """A section of the page: its content, or the reason why it has none."""

    name: str
    title: str
    intro: str = ""
    content: Any = field(default_factory=list)
    missing: str = ""


def write_page(results: dict[str, Any], folder: Path) -> Path:
    """Write the page of a benchmark's results.

    A section whose data are missing from the results, or damaged, is replaced by a sentence that says so.

    Parameters
    ----------
    results
        See `recvae.benchmark.results`.
    folder
        Folder of index.html.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    InvalidDataError
        If `results` are not those of a benchmark.
    MissingDependencyError
        If the libraries of the extra `report` are not installed.
    OutputError
        If the page cannot be written.
    """
    check_page()
    check_results(results)
    path = output_path(folder) / PAGE
    check_writable(path)  # now rather than after the page is made
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):  # each chart is checked against its schema once, as a whole
        html = _html(results)
    write_whole(path, html.encode())
    return path


def check_page() -> None:
    """Raise MissingDependencyError if a library that the page needs is not installed."""
    for library in ("altair", "jinja2", "vl_convert"):
        require(library, extra="report", purpose="The page of results")


def _html(results: dict[str, Any]) -> str:
    import jinja2

    from recvae.benchmark.report import text
    from recvae.benchmark.report.view import View

    view = View(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("page.html.jinja")
    return template.render(
        heading=text.heading(view),
        verdict=_section(view, "verdict", "", text.verdict),
        facts=text.facts(view),
        sections=_sections(view),
        looks=view.looks,
        css=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=(FOLDER / "page.js").read_text(encoding="utf-8"),
        bundle=_bundle(),
    )


def _sections(view: View) -> list[Section]:
    from recvae.benchmark.report import accuracy, examples, text, training

    elbo = (
        "A variational autoencoder maximises the ELBO: how well it restores a user, less how far its code is from the "
        "prior. Both terms are shown as they are minimised, in nats, without the weight."
    )
    return [
        _section(view, "models", "Models", lambda v: (text.models(v), accuracy.accuracy(v))),
        _section(view, "cost", "What accuracy costs", accuracy.costs),
        _section(view, "length", "How long a list has to be", accuracy.recall_curves),
        _section(view, "activity", "Which users are served best", accuracy.by_activity),
        _section(view, "popularity", "Which items are found", accuracy.by_popularity),
        _section(view, "lists", "What is recommended", accuracy.recommended_items),
        _section(view, "people", "A few users of the test", examples.users),
        _section(view, "items", "A map of the items", examples.item_map),
        _section(view, "learning", "How the models learned", training.learning_curves, elbo),
        _section(view, "latent", "How much of the latent space is used", training.latent_units),
        _section(view, "memory", "Memory", training.memory),
        _section(view, "made", "How this was made", text.provenance),
    ]


def _section(view: View, name: str, title: str, make: Callable[[View], Any], intro: str = "") -> Section:
    """A section, or the reason why it has no content."""
    from recvae.benchmark.report.view import AbsentError

    try:
        return Section(name, title, intro, make(view))
    except AbsentError as why:
        return Section(name, title, missing=f"Missing here: {why}")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        # a file of results may come from anywhere: damaged data lose a section, not the page
        return Section(name, title, missing="Missing here: what the results hold of this is damaged, or cut.")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed, in the version that Altair writes for."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    bundle: Any = vl_convert.javascript_bundle  # its stub wrongly requires a snippet
    source: str = bundle(vl_version=version)
    return source.replace("</script", "<\\/script")
