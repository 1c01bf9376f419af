"""One self-contained HTML page of a benchmark's results: no network, opens from disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recvae.benchmark.results import check_results
from recvae.utils.files import check_writable, write_whole
from recvae.utils.optional import require
from recvae.utils.paths import output_path

PAGE = "index.html"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A part of the page: what is in it, or the sentence that says why there is nothing."""

    name: str
    title: str
    intro: str = ""
    content: Any = field(default_factory=list)
    missing: str = ""


def write_page(results: dict[str, Any], folder: Path) -> Path:
    """Write the page of results (see `recvae.benchmark.results`) into a folder.

    A part that the results lack, or hold damaged, is left out, and the page says so in its place.

    Returns
    -------
    Path
        Its path.

    Raises
    ------
    InvalidDataError
        For what is no results at all.
    MissingDependencyError
    OutputError
    """
    check_page()
    check_results(results)
    path = output_path(folder) / PAGE
    check_writable(path)  # now rather than after the page is made
    write_whole(path, _html(results).encode())
    return path


def check_page() -> None:
    """Whether the libraries are here by which a page is made. Raises MissingDependencyError."""
    for library in ("altair", "jinja2", "vl_convert"):
        require(library, extra="report", purpose="The page of results")


def _html(results: dict[str, Any]) -> str:
    import jinja2

    from recvae.benchmark.report import about
    from recvae.benchmark.report.view import View

    view = View(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("page.html.jinja")
    return template.render(
        heading=about.heading(view),
        verdict=_part(view, "verdict", "", "", about.verdict),
        facts=about.facts(view),
        parts=_parts(view),
        looks=view.looks,
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        bundle=_bundle(),
    )


def _parts(view: Any) -> list[Part]:
    from recvae.benchmark.report import about, accuracy, people, training

    elbo = (
        "A variational autoencoder maximises the ELBO: how well it restores a user, less how far its code is from the "
        "prior. Both terms are shown as they are minimised, in nats, without the weight."
    )
    return [
        _part(view, "models", "Models", "", lambda v: (about.table(v), accuracy.accuracy(v))),
        _part(view, "cost", "What accuracy costs", "", accuracy.costs),
        _part(view, "length", "How long a list has to be", "", accuracy.recall_curves),
        _part(view, "activity", "Which users are served best", "", accuracy.by_activity),
        _part(view, "popularity", "Which items are found", "", accuracy.by_popularity),
        _part(view, "lists", "What is recommended", "", accuracy.listed),
        _part(view, "people", "A few users of the test", "", people.people),
        _part(view, "items", "A map of the items", "", lambda v: [people.item_map(v)]),
        _part(view, "learning", "How the models learned", elbo, training.learning),
        _part(view, "latent", "How much of the latent space is used", "", training.latent_units),
        _part(view, "memory", "Memory", "", training.memory),
        _part(view, "made", "How this was made", "", about.made),
    ]


def _part(view: Any, name: str, title: str, intro: str, make: Callable[[Any], Any]) -> Part:
    """A part, or why it is not there."""
    from recvae.benchmark.report.view import AbsentError

    try:
        return Part(name, title, intro, make(view))
    except AbsentError as why:
        return Part(name, title, missing=f"Missing here: {why}")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        # the file came from anywhere: what is damaged in it costs its part of the page, not the page
        return Part(name, title, missing="Missing here: what the results hold of this is damaged, or cut.")


def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed, in the version that Altair writes for."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    bundle: Any = vl_convert.javascript_bundle  # whose stub asks for a snippet of one's own
    source: str = bundle(vl_version=version)
    return source.replace("</script", "<\\/script")
