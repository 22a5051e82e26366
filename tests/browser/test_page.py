"""The report's page as Chromium draws it: light, dark and narrow, from the records of 36 runs."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_guard.report import build, comparison, page, results, writers
from tests.report.test_report import HOSTILE, evaluation, policy, run

api = pytest.importorskip("playwright.sync_api", reason="needs requirements/browser.txt")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")

RECORDS = sorted(map(str, Path("experiments/methods/short").glob("*.json")))
WIDE, NARROW = 1200, 390
# Rectangles of the elements that a selector finds, with their text.
RECTANGLES = """selector => [...document.querySelectorAll(selector)].map(e => {
    const r = e.getBoundingClientRect();
    return {x: r.x, y: r.y + scrollY, right: r.right, bottom: r.bottom + scrollY,
            height: r.height, text: e.textContent};
}).filter(r => r.height > 0)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build.write(folder, RECORDS, against=None, published=None)
    return folder


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Seen:
    """A page that is open in a browser, what it drew, and what it said and asked for meanwhile."""

    def __init__(self, browser, path, scheme="light", width=WIDE):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        image = Image.open(io.BytesIO(self.page.screenshot(full_page=True)))
        self.pixels = np.asarray(image.convert("RGB")).astype(int)

    def rectangles(self, selector):
        return self.page.evaluate(RECTANGLES, selector)

    def drawn(self, box):
        """The pixels of a rectangle."""
        y, bottom, x, right = (int(box[k]) for k in ("y", "bottom", "x", "right"))
        return self.pixels[y:bottom, x:right]

    def colour(self, role):
        """A colour of the style sheet, such as --method, as RGB."""
        name = self.page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name)", role
        ).strip()
        return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.fixture(scope="module", params=["light", "dark"])
def seen(request, browser, folder):
    return request.param, Seen(browser, folder / "report.html", request.param)


@pytest.fixture(scope="module")
def narrow(browser, folder):
    return Seen(browser, folder / "report.html", "dark", NARROW)


def luminance(colour):
    """Relative luminance of WCAG 2.2 of an RGB colour of 0 to 255."""
    c = np.asarray(colour) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(c @ (0.2126, 0.7152, 0.0722))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def near(pixels, colour, distance=30):
    return (np.abs(pixels - colour).max(axis=-1) < distance).sum()


def test_the_page_is_small_asks_for_nothing_and_has_no_complaints(seen, folder):
    _, view = seen
    assert (folder / "report.html").stat().st_size < 3e6
    assert [url for url in view.asked if not url.startswith("data:")] == [
        (folder / "report.html").as_uri()
    ]
    assert not view.said


def test_the_paper_is_light_or_dark(seen):
    scheme, view = seen
    paper = view.pixels[5, 5]
    assert luminance(paper) > 0.8 if scheme == "light" else luminance(paper) < 0.05
    # Not a dark page with white pictures: nearly all of each panel without a raster is paper.
    for box in view.rectangles("svg:not(:has(image))"):
        assert near(view.drawn(box), paper, 8) > 0.6 * view.drawn(box).size / 3


def test_colours_can_be_told_from_the_paper(seen):
    _, view = seen
    paper = view.pixels[5, 5]
    for role in ("--ink", "--soft", "--warn"):
        assert contrast(view.colour(role), paper) >= 4.5  # WCAG: text
    for role in ("--method", "--second", "--baseline"):
        assert contrast(view.colour(role), paper) >= 3  # WCAG: graphics


def test_every_panel_draws_its_method_and_its_baseline(seen):
    _, view = seen
    panels = view.rectangles("section:first-of-type figure svg")
    methods = {path.rpartition("-")[0] for path in RECORDS}
    assert len(panels) == 2 * (len(methods) - 1)  # two kinds of figure, each with the baseline
    for box in panels:
        pixels = view.drawn(box)
        assert near(pixels, view.colour("--method")) > 80
        assert near(pixels, view.colour("--baseline")) > 80
        assert near(pixels, view.colour("--ink"), 60) > 100  # axes and numbers
    for box in view.rectangles("svg:has(image)"):
        middle = view.drawn(box)[40:-60, 80:-20]
        assert len(np.unique(middle.reshape(-1, 3), axis=0)) > 5  # a raster of many colours


def test_numbers_in_panels_do_not_overlap_and_can_be_read(seen, narrow):
    for view in (seen[1], narrow):
        for figure in view.page.query_selector_all("figure")[::7]:
            rectangles = figure.eval_on_selector_all(
                "text",
                """texts => texts.map(t => {
                const r = t.getBoundingClientRect();
                const s = t.ownerSVGElement.getBoundingClientRect();
                return {x: r.x, right: r.right, y: r.y, bottom: r.bottom, text: t.textContent,
                        inside: r.x >= s.x - 1 && r.right <= s.right + 1 &&
                                r.y >= s.y - 1 && r.bottom <= s.bottom + 1};
            })""",
            )
            assert len(rectangles) > 5
            for i, a in enumerate(rectangles):
                assert a["inside"], a
                assert a["bottom"] - a["y"] >= 9, a
                for b in rectangles[i + 1 :]:
                    apart = a["right"] <= b["x"] + 1 or b["right"] <= a["x"] + 1
                    apart |= a["bottom"] <= b["y"] + 1 or b["bottom"] <= a["y"] + 1
                    assert apart, (a, b)


def test_nothing_is_wider_than_the_window(seen, narrow):
    for view, width in ((seen[1], WIDE), (narrow, NARROW)):
        assert view.page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(box["right"] <= width for box in view.rectangles("svg, p, li, h2, dd, .wide"))
    # Every table is whole in a window of usual width, and scrolls in its box on a phone.
    wider = "[...document.querySelectorAll('.wide')].filter(t => t.scrollWidth > t.clientWidth)"
    assert seen[1].page.evaluate(f"{wider}.map(t => t.textContent)") == []
    assert narrow.page.evaluate(f"{wider}.every(t => getComputedStyle(t).overflowX == 'auto')")
    assert narrow.page.evaluate("document.querySelectorAll('table').length") == len(
        narrow.page.query_selector_all(".wide > table")
    )


def test_the_verdict_comes_first_then_the_forest_then_the_summary(seen):
    _, view = seen
    verdict, forest = view.rectangles(".verdict")[0], view.rectangles(".forest svg")[0]
    table, figure = view.rectangles(".wide")[0], view.rectangles("section figure")[0]
    assert verdict["y"] < 100 and verdict["text"].startswith("unlabelled data: ")
    assert verdict["bottom"] < forest["y"] < 300
    assert forest["bottom"] < table["y"] and table["bottom"] < figure["y"]
    methods = {Path(path).name.rpartition("-")[0] for path in RECORDS}
    names = {box["text"] for box in view.rectangles(".forest text")} & methods
    assert names == methods - {"supervised"}  # a line for each method but the baseline
    assert near(view.drawn(forest), view.colour("--method")) > 80 * len(names)
    assert len(view.page.query_selector_all(".wide:first-of-type tbody tr")) >= 12


def test_the_first_set_is_open_and_the_rest_is_folded(browser, tmp_path):
    own, parts = results.own_test(run("ours", 0, 0.3)), []
    for number in range(2):
        cohort = own.cohort | {"corpus": f"set {number}", "corpus_sha256": f"{number}" * 64}
        found = [own._replace(evaluation=own.evaluation | {"cohort": cohort})]
        parts.append((found, comparison.summarise(found, "ours")))
    path = tmp_path / "report.html"
    path.write_text(page.render(parts, against="ours", alarms=[], published=[]))
    seen = browser.new_page()
    seen.goto(path.as_uri())
    for number, is_open in ((0, True), (1, False)):
        section = f"section:has(h2:text-is('set {number}'))"
        for title, expected in (
            ("Precision and recall", is_open),
            ("All scores", False),
            ("Provenance", False),
        ):
            found = seen.query_selector(f"{section} details:has(h3:text-is('{title}'))")
            assert found.evaluate("d => d.open") == expected, (number, title)
        assert not seen.query_selector(f"{section} dl").is_visible()  # hashes and label map


def test_hostile_names_stay_text(browser, tmp_path):
    attack = HOSTILE + "<img src=x onerror=alert(1)>"
    made, rows = evaluation(run("ours", 0, 0.3), 1)
    made["slices"]["category"][attack] = made["slices"]["category"].pop(HOSTILE)
    made["cohort"]["corpus"] = attack
    own = results.own_test(run("ours", 0, 0.3))
    part = [own._replace(method=attack, evaluation=made | {"cohort": own.cohort | made["cohort"]})]
    parts = [(part, comparison.summarise(part, attack))]
    path = tmp_path / "report.html"
    path.write_text(page.render(parts, against=attack, alarms=[(attack, [attack])], published=[]))
    view = Seen(browser, path)
    assert not view.said and view.asked == [path.as_uri()]
    assert view.page.evaluate("document.querySelectorAll('script, img').length") == 0
    assert view.page.query_selector("h2").text_content() == attack
    assert writers.to_csv(parts)


def test_many_test_sets_at_two_thresholds(browser, tmp_path):
    """Curves are drawn once for the same rows, and neither long names nor many sets widen the
    page."""
    own, results_of_sets = results.own_test(run("ours", 0, 0.3)), []
    for number in range(10):
        for threshold in ("dev_best_f1", "policy:permissive, FPR <= 0.01 with 0.95 confidence"):
            made, _ = evaluation(run("ours", 0, 0.3), 1)
            made["cohort"] |= {
                "corpus": f"a_test_set_with_a_rather_long_name_{number}",
                "corpus_sha256": f"{number}" * 64,
                "rows_sha256": "r" * 64,
                "threshold_policy": threshold,
            }
            results_of_sets.append(own._replace(evaluation=made))
    own.run["policy"] = policy(own.run)
    parts = [([each], comparison.summarise([each], "ours")) for each in results_of_sets]
    path = tmp_path / "report.html"
    path.write_text(page.render(parts, against="ours", alarms=[], published=[]))
    for width in (WIDE, NARROW):
        view = Seen(browser, path, "dark", width)
        assert view.page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(box["right"] <= width for box in view.rectangles("svg, p, li, h2, dd, .wide"))
    assert len(view.rectangles("h2")) == 1 + 1 + 20 + 2  # overview, policies, sets, training, runs
    curves = [box for box in view.rectangles("summary") if box["text"] == "Precision and recall"]
    assert len(curves) == 10
    overview = view.page.query_selector(".wide")
    assert len(overview.query_selector_all("tbody tr")) == 20
