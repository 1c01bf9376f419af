"""The page of results in a real browser: what a stranger who opens the file meets."""

import re
import shutil

import pytest

from recvae.benchmark.report import write_page

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# the lowest contrast of the words that match, against what lies behind them (WCAG 2.2, relative luminance)
CONTRAST = """selector => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => (v /= 255, v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [...document.querySelectorAll(selector)].filter(node => node.getClientRects().length).map(node => {
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  });
  return [found.length, Math.min(...found)];
}"""


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(results, tmp_path_factory):
    return write_page(results, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def tabs(chromium):
    """The pages that are open, by size and colours of the screen, and all that they have said."""
    found, wrong = {}, []
    yield found, wrong
    for page in found.values():
        page.context.close()


@pytest.fixture
def opened(chromium, file, tabs):
    """-> a function that opens the page; whatever it says or asks for besides itself is an error in the end"""
    found, wrong = tabs

    def look(viewport=DESK, scheme="light", hover=False):
        key = (viewport["width"], scheme, hover)
        if key not in found:
            context = chromium.new_context(viewport=viewport, color_scheme=scheme, has_touch=viewport == PHONE)
            context.set_offline(True)
            page = found[key] = context.new_page()
            page.set_default_timeout(120_000)
            page.on("console", lambda message: wrong.append(message.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on(
                "request", lambda request: None if request.url == file.as_uri() else wrong.append(request.url[:200])
            )
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-drawn=yes]")
        if hover:
            found[key].mouse.move(0, 0)
            found[key].locator("#vg-tooltip-element.visible").wait_for(state="hidden")
        return found[key]

    yield look
    assert [text for text in wrong if not text.startswith("data:")] == []


def test_all_charts_are_drawn(opened):
    page = opened()
    drawn = page.eval_on_selector_all(
        ".plot", "all => all.map(plot => [plot.dataset.chart, plot.querySelectorAll('svg path').length])"
    )
    assert len(drawn) == 15
    assert all(n_paths > 5 for _, n_paths in drawn), drawn
    assert page.locator(".missing").count() == 0


def test_hover_tells_the_title_of_an_item(opened, results):
    page = opened(hover=True)
    mark = page.locator("#chart-map .plot .mark-symbol path").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert any(title in tip.inner_text() for title in results["item_map"]["title"])


def test_hover_tells_all_values_at_one_length_of_a_list(opened, results):
    page = opened(hover=True)
    plot = page.locator("#chart-recall .plot svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    text = tip.inner_text()
    k = int(re.search(r"k, items in the list:?\s*(\d+)", text).group(1))
    for row in results["models"]:
        assert f"{row['recall_curve'][k - 1]['mean']:.4f}" in text


def test_one_genre_can_be_shown_alone(opened):
    page = opened()
    choice = page.locator("#map-controls select")
    strong = "all => all.filter(mark => +mark.getAttribute('opacity') > .5).length"
    marks = "#chart-map .plot .mark-symbol path"
    everything = page.eval_on_selector_all(marks, strong)
    choice.select_option(index=1)
    page.wait_for_function(f"({strong})([...document.querySelectorAll('{marks}')]) < {everything}")
    assert page.eval_on_selector_all(marks, strong) > 0
    choice.select_option(index=0)
    page.wait_for_function(f"({strong})([...document.querySelectorAll('{marks}')]) == {everything}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, scheme):
    page = opened(PHONE, scheme)
    for summary in page.locator("summary").all():
        summary.evaluate("node => node.parentElement.open = true")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    wide = page.locator("#models .scroll").first
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth")  # the table scrolls in its own box
    smallest = "all => Math.min(...all.map(node => parseFloat(getComputedStyle(node).fontSize)))"
    assert page.eval_on_selector_all("svg text", smallest) >= 12
    clipped = """all => all.filter(text => {
      const [a, b] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
      return a.width && (a.left < b.left - 1 || a.right > b.right + 1);
    }).map(text => text.textContent)"""
    assert page.eval_on_selector_all(".plot svg text", clipped) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(opened, scheme):
    page = opened(DESK, scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == (scheme == "dark")
    for selector in ("p, li, th, td, dt, dd, h1, h2, h3, a, small, summary", ".plot svg text", ".found, .because"):
        n_found, lowest = page.evaluate(CONTRAST, selector)
        assert n_found > 5
        assert lowest >= 4.5, selector


def test_labels_do_not_lie_on_each_other(opened):
    for viewport in (PHONE, DESK):
        page = opened(viewport)
        overlaps = """all => all.flatMap(plot => {
          const texts = [...plot.querySelectorAll('svg .role-axis-label text')].filter(
            text => text.getBoundingClientRect().width && getComputedStyle(text).opacity > 0);
          const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
          return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 2 && q.top < p.bottom - 2
          ).map(([b]) => `${plot.dataset.chart}: ${a} / ${b}`));
        })"""
        assert page.eval_on_selector_all(".plot", overlaps) == []


def test_it_is_printed_dark_on_white(opened):
    page = opened(DESK, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST, "p, th, td, .plot svg text")[1] >= 4.5
    assert page.pdf()[:5] == b"%PDF-"
