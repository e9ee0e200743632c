"""Every page of the built book: silent, self-contained, readable on a telephone and in the dark."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
URL = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]
PAGES = sorted(
    page
    for page in (path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
    # index.html only redirects, and the page for wrong addresses works where the book is published
    if not page.startswith("_") and page not in ("index.html", "404.html")
)
AXE = (Path(__file__).parent / "axe.min.js").read_text("utf-8")

# The theme's own faults, which a stylesheet cannot mend.
THEME_FAULTS = {
    "label-content-name-mismatch",  # the search button's label does not hold its visible text
    "region",  # the skip link and the search dialog stand outside of landmarks
}
# docutils gives the bibliography and its entries roles that ARIA has retired.
CITATION = re.compile(r'<div (role="list" )?class="citation(-list)?"')
LOADING = dict.fromkeys(["script", "img", "iframe", "source", "video"], "src") | {"link": "href"}
# Links that only name something: nothing is fetched.
NAMING = {"canonical", "license", "author", "next", "prev", "search", "index"}


class Loads(HTMLParser):
    """Collects what a page makes the browser fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        url = attrs.get(LOADING.get(tag, ""))
        if url and not (tag == "link" and set(attrs.get("rel", "").split()) & NAMING):
            self.found.append(url)


def outside_loads(text):
    """URLs on other hosts among what the page's scripts, styles and pictures are loaded from."""
    parser = Loads()
    parser.feed(text)
    return [url for url in parser.found if re.match(r"(https?:)?//", url)]


def outside_requests(log):
    """URLs on other hosts among the requests in a performance log."""
    messages = [json.loads(entry["message"])["message"] for entry in log]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [p["request"]["url"] for p in sent]
    here = re.compile(r"(file|data|blob|about|chrome):|https?://127\.0\.0\.1[:/]")
    return [url for url in urls if not here.match(url)]


def prefer(browser, theme):
    features = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def open_page(browser, page, theme="light"):
    prefer(browser, theme)
    browser.get((HTML / page).as_uri())
    formulas = "return window.MathJax?.startup ? MathJax.startup.promise.then(() => true) : true"
    WebDriverWait(browser, 120).until(lambda b: b.execute_script(formulas))


# Of the module: the tests of one page stand together, so most find it open.
@pytest.fixture(scope="module", params=PAGES)
def page(request):
    return request.param


@pytest.fixture
def opened(driver, window, page):
    """The browser with the page open, which takes seconds where there are formulas."""
    if driver.current_url.split("#")[0] != (HTML / page).as_uri():
        open_page(driver, page)
    return driver


def unfold(browser):
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")


def test_the_checks_can_fail():
    assert outside_loads('<script src="https://cdn.example/x.js"></script>')
    assert outside_loads('<link rel="stylesheet" href="//cdn.example/x.css">')
    assert not outside_loads('<a href="https://example.org">x</a><script src="x.js"></script>')
    params = {"request": {"url": "https://cdn.example/x"}}
    message = {"message": {"method": "Network.requestWillBeSent", "params": params}}
    assert outside_requests([{"message": json.dumps(message)}])


def test_there_are_pages():
    assert "book/index.html" in PAGES
    assert any(page.startswith("chapters/") for page in PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("chapters/")])
def test_the_colab_button_opens_the_notebook(page):
    repository = URL.removeprefix("https://github.com/")
    notebook = f"{repository}/blob/main/{Path(page).with_suffix('.ipynb')}"
    link = f'href="https://colab.research.google.com/github/{notebook}"'
    assert link in (HTML / page).read_text("utf-8")


def test_names_no_other_host(page):
    assert outside_loads((HTML / page).read_text("utf-8")) == []


def test_says_what_it_is_where_it_is_found_or_shared(page):
    text = (HTML / page).read_text("utf-8")
    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["sphinx"]["config"]
    assert f'<link rel="canonical" href="{sphinx["html_baseurl"]}{page}"' in text
    if page == "search.html":
        return
    least = {'name="description"': 30, 'property="og:title"': 5, 'property="og:image"': 10}
    for name, length in least.items():
        assert re.search(rf'<meta {name} content="[^"]{{{length},}}"', text), name
    assert (HTML / "sitemap.xml").read_text("utf-8").count(f"/{page}</loc>") == 1


def test_a_wrong_address_has_a_page():
    text = (HTML / "404.html").read_text("utf-8")
    assert "not found" in text.lower()
    assert URL.split("/")[-1] in re.search(r'href="([^"]*custom\.css)', text)[1]


def test_the_stylesheet_has_every_icon_that_the_pages_ask_for():
    css = (ROOT / "book/_static/custom.css").read_text("utf-8")
    drawn = set(re.findall(r"\.fa-([a-z-]+) \{ --icon", css))
    pages = list(HTML.rglob("*.html"))
    used = {
        name
        for page in pages
        for classes in re.findall(
            r'class="([^"]*\bfa[bs]?\b[^"]*|[^"]*fa-solid[^"]*)"', page.read_text("utf-8")
        )
        for name in re.findall(r"fa-(?!solid|lg|brands|regular)([a-z-]+)", classes)
    }
    assert used <= drawn


def test_is_light(page):
    """A page with all that it loads, fonts and formulas apart, which all pages share."""
    text = (HTML / page).read_text("utf-8")
    parser = Loads()
    parser.feed(text)
    loaded = {
        (HTML / page).parent / url.split("?")[0] for url in parser.found if "mathjax" not in url
    }
    size = len(text) + sum(path.stat().st_size for path in loaded if path.is_file())
    assert size < (2.5e6 if page.startswith("chapters") else 1.2e6), f"{size:,} bytes"


def test_opens_in_silence(browser, page):
    open_page(browser, page)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert outside_requests(browser.get_log("performance")) == []
    assert browser.execute_script("return document.querySelectorAll('mjx-merror').length") == 0


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_sticks_out(opened, window, width):
    window(width, 800)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_equations_are_seen(opened, window):
    """A formula fits into its column; on a telephone one scrolls to its end, never to its start."""
    ends = """
        return [...document.querySelectorAll("div.math")].map((column) => {
            const signs = [...column.querySelectorAll("mjx-mi, mjx-mo, mjx-mtext")];
            const boxes = signs.map((sign) => sign.getBoundingClientRect());
            const room = column.getBoundingClientRect();
            const left = Math.min(...boxes.map((box) => box.left)) - room.left;
            return [Math.round(left), Math.round(column.scrollWidth - column.clientWidth)];
        });"""
    unfold(opened)
    for width in (1280, 375):
        window(width, 800)
        found = opened.execute_script(ends)
        assert [left for left, _ in found if left < -1] == []
        if width == 1280:
            assert [over for _, over in found if over > 1] == []


def test_code_of_88_characters_fits(browser):
    """At 1280 pixels, a code block shows 88 characters without scrolling."""
    open_page(browser, next(page for page in PAGES if page.startswith("chapters/")))
    room = """
        const pre = document.querySelector(".cell_input pre"), style = getComputedStyle(pre);
        const probe = pre.appendChild(document.createElement("span"));
        probe.textContent = "0".repeat(100);
        const one = probe.getBoundingClientRect().width / 100;
        probe.remove();
        const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
        return (pre.clientWidth - padding) / one;"""
    assert browser.execute_script(room) >= 88


def test_dark_mode(browser):
    background = "return getComputedStyle(document.body).backgroundColor"
    channels = {}
    for theme in ("light", "dark"):
        open_page(browser, "book/index.html", theme)
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
        channels[theme] = sum(map(int, re.findall(r"\d+", browser.execute_script(background))[:3]))
    assert channels["dark"] < 150 < 600 < channels["light"]


def test_the_theme_button_switches(browser):
    open_page(browser, "book/index.html", "light")
    themes = set()
    for _ in range(3):
        browser.execute_script("document.querySelector('.theme-switch-button').click()")
        themes.add(browser.execute_script("return document.documentElement.dataset.theme"))
    browser.execute_script("localStorage.clear()")
    assert themes == {"light", "dark"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessibility(opened, theme):
    """All rules in the light; in the dark those on colours, since nothing else changes."""
    options = {"resultTypes": ["violations"]}
    if theme == "dark":
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    prefer(opened, theme)
    unfold(opened)
    opened.execute_script(AXE)
    run = "return axe.run(arguments[0]).then((result) => result.violations)"
    violations = opened.execute_script(run, options)
    assert opened.execute_script("return document.documentElement.dataset.theme") == theme
    faults = [(v["id"], node["html"][:200]) for v in violations for node in v["nodes"]]
    known = [f for f in faults if f[0] in THEME_FAULTS or CITATION.match(f[1])]
    assert [fault for fault in faults if fault not in known] == []


def test_an_inaccessible_page_is_seen(browser):
    browser.get("data:text/html,<img src=x><p style='color:%23999'>faint</p>")
    browser.execute_script(AXE)
    violations = browser.execute_script("return axe.run().then((result) => result.violations)")
    assert {"image-alt", "color-contrast"} <= {v["id"] for v in violations}
