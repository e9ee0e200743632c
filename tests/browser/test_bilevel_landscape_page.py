"""The bilevel landscape in a browser: the package's numbers, and a race without a kernel."""

import numpy as np
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from widget_pages import call, choose, click, follow, slider, text

from qtdqas_lite.bilevel import METHODS
from qtdqas_lite.widgets import BilevelLandscape

TRAITS = ("start", "train_wish", "val_wish", "learning_rate", "xi")


def test_numbers_are_the_packages(browser):
    """tests/unit compares those of Python with qtdqas_lite.bilevel."""
    rng = np.random.default_rng(0)
    cases = [
        {
            **dict(zip(TRAITS, rng.uniform(-2.4, 2.4, (3, 2)).tolist(), strict=False)),
            "learning_rate": rng.uniform(0.01, 0.3),
            "xi": rng.uniform(0.02, 0.9),
        }
        for _ in range(20)
    ]
    answers = call(browser, BilevelLandscape, "race", cases)
    for case, answer in zip(cases, answers, strict=True):
        widget = BilevelLandscape(**case)
        assert np.allclose(answer["best"], widget.best, rtol=0, atol=1e-12)
        for method in METHODS:
            assert np.allclose(answer["paths"][method], widget.paths[method], rtol=0, atol=1e-9)
            pairs = zip(answer["cosines"][method], widget.cosines[method], strict=True)
            both = [(a, b) for a, b in pairs if a is not None and b is not None]
            assert both
            assert np.allclose(*zip(*both, strict=True), rtol=0, atol=1e-5)


def cosine(view, method):
    rows = [row.text.split("\n")[-1] for row in view.find_elements(By.CSS_SELECTOR, "tbody tr")]
    return next(row.split()[-1] for row in rows if method in row)


def test_a_hand_on_the_page(browser, open_widgets):
    (view,) = open_widgets(BilevelLandscape())
    assert text(view, ".qw-hint").startswith("After 150 steps: F is lowest for implicit")
    slider(view, "Step of the race").send_keys(Keys.HOME)
    assert text(view, ".qw-hint").startswith("At the start")
    assert cosine(view, "implicit") == "1.00"
    before = view.find_element(By.CSS_SELECTOR, ".qw-plane").get_attribute("aria-label")
    choose(view, "Move", "Validation's wish")
    slider(view, "α₁").send_keys(Keys.ARROW_RIGHT)
    label = view.find_element(By.CSS_SELECTOR, ".qw-plane").get_attribute("aria-label")
    assert "Validation's wish at (\u22120.95, 0.60)" in label
    assert "Start at (\u22121.60, \u22120.90)" in label
    click(view, "Reset")
    assert view.find_element(By.CSS_SELECTOR, ".qw-plane").get_attribute("aria-label") == before


def test_the_start_is_dragged(browser, open_widgets):
    (view,) = open_widgets(BilevelLandscape(step=0))
    handle = view.find_element(By.CSS_SELECTOR, ".qw-start .qw-grip")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", handle)
    ActionChains(browser).drag_and_drop_by_offset(handle, 40, -40).perform()
    label = view.find_element(By.CSS_SELECTOR, ".qw-plane").get_attribute("aria-label")
    assert "Start at (\u22121.60, \u22120.90)" not in label
    choose(view, "Move", "Training's wish")
    choose(view, "Move", "Start")
    assert f"Start at ({slider(view, 'α₁').get_attribute('aria-valuetext')}, " in label


def test_python_is_heard(browser):
    changes = [("step", 0), ("start", [1, 1])]
    steps, after = follow(browser, BilevelLandscape(), changes, ".qw-hint")
    assert len({told for (told,) in steps}) == 3
    assert after == [0, 0, 0]
