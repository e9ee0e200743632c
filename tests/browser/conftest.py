"""A real browser on the built book, with every request to another machine blocked."""

import os
import shutil

import pytest
from selenium import webdriver
from widget_pages import ROOT, page_of, wait_for

HTML = ROOT / "_build" / "html"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other machine exists
]
SIZE = (1280, 900)


def find(*names):
    return next(filter(None, map(shutil.which, names)), None)


def require(found, what):
    """Skip where there is no browser, but never in CI: there the tests have to run."""
    if not found and os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set")
    if not found:
        pytest.skip(f"{what} is not installed: the browser tests did not run")


@pytest.fixture(scope="session")
def html():
    """The folder of the built book."""
    assert HTML.is_dir(), "the book is not built: run make book"
    return HTML


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    chromium = find("chromium", "chromium-browser", "google-chrome")
    chromedriver = find("chromedriver")
    require(chromium, "chromium")
    require(chromedriver, "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    for flag in [*FLAGS, profile]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(600)  # a busy machine is no fault of a page
    yield driver
    driver.quit()


@pytest.fixture
def window(driver):
    """Set the page's size: ``window(375, 800)``. A window of Chromium cannot be that narrow."""

    def resize(width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    resize(*SIZE)
    return resize


@pytest.fixture
def browser(driver, window):
    """The browser at 1280 x 900, with nothing of an earlier test in its logs."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    return driver


@pytest.fixture
def quiet(browser):
    """The browser; what the test opens in it must log no error."""
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture
def open_widgets(quiet, tmp_path):
    """``open_widgets(widget, ...)`` shows them in one page and gives their elements."""

    def open_(*widgets, theme="light"):
        path = tmp_path / "page.html"
        page_of(widgets, path, theme)
        quiet.get(path.as_uri())
        return wait_for(quiet, len(widgets))

    return open_


@pytest.fixture
def open_in_book(quiet):
    """``open_in_book(name, selector)`` opens a built page and gives its widget's element."""

    def open_(name, selector):
        page = HTML / f"{name}.html"
        if not page.is_file():
            text = f"{page.relative_to(ROOT)} is not there: run make book"
            pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
        quiet.get(page.as_uri())
        (view,) = wait_for(quiet, 1, f".widget-subarea {selector}")
        return view

    return open_
