"""A small page with widgets and no kernel, and a hand on their controls."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from qtdqas_lite.widgets import save_html

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(__file__).parent / "axe.min.js"

CALL = """
    const [source, name, configurations, done] = arguments;
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    import(url).then((module) => done(configurations.map(module[name])));"""


def call(browser, widget, name, configurations):
    """What the front end's function of this name gives for each of these arguments."""
    return browser.execute_async_script(CALL, widget._esm, name, configurations)


def page_of(widgets, path, theme="light"):
    """Save widgets as a page of their own, in one theme whatever the browser prefers."""
    save_html(widgets, path)
    text = path.read_text("utf-8").replace("<html lang", f'<html data-theme="{theme}" lang')
    path.write_text(text, "utf-8")


def wait_for(browser, count=1, selector=".qw"):
    """Wait until that many widgets are there, and give their elements."""
    WebDriverWait(browser, 120).until(
        lambda b: len(b.find_elements(By.CSS_SELECTOR, selector)) == count
    )
    return browser.find_elements(By.CSS_SELECTOR, selector)


def named(view, selector, name):
    """The control that a screen reader would call ``name``."""
    return next(
        s for s in view.find_elements(By.CSS_SELECTOR, selector) if s.accessible_name == name
    )


def slider(view, name):
    """The slider of this name."""
    return named(view, "[type=range]", name)


def text(view, selector):
    """The text of the first element that the selector finds."""
    return view.find_element(By.CSS_SELECTOR, selector).get_property("textContent")


def click(view, name):
    """Click the button, or unfold the part, of this name."""
    _click(
        next(e for e in view.find_elements(By.CSS_SELECTOR, "button, summary") if e.text == name)
    )


def choose(view, group, name):
    """Click the option of this name in the radio group of that name."""
    radios = named(view, "[role=radiogroup]", group)
    _click(named(radios, "[type=radio]", name))


def _click(element):
    element.parent.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    element.click()


def violations(browser):
    """What axe finds on the page, with everything unfolded."""
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    browser.execute_script(AXE.read_text("utf-8"))
    found = browser.execute_script("return axe.run().then((result) => result.violations)")
    return {v["id"]: [n["html"][:200] for n in v["nodes"]] for v in found}


def sticks_out(browser, width):
    """By how many pixels the page is wider than this."""
    return max(0, browser.execute_script("return document.documentElement.scrollWidth") - width)


def episode(n_steps, *, size=(150, 200), number=0, reward=1.0, ends="terminated"):
    """A film of plain colours: red counts the steps, and green is the film's number."""
    frames = [np.full((*size, 3), (step, number, 90), np.uint8) for step in range(n_steps + 1)]
    over = {"terminated": ends == "terminated", "truncated": ends == "truncated"}
    return SimpleNamespace(frames=frames, rewards=[reward] * n_steps, **over)


# A model as Jupyter has one: it changes from outside, and says who listens.
MODEL = """
    const [source, state, changes, selectors, done] = arguments;
    const listeners = {};
    const model = {
        get: (name) => state[name],
        set(name, value) {
            state[name] = value;
            (listeners[`change:${name}`] ?? []).forEach((f) => f());
        },
        on: (name, f) => (listeners[name] ??= []).push(f),
        off: (name, f) => { listeners[name] = listeners[name].filter((g) => g !== f); },
        save_changes() {},
    };
    const key = new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true });
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    import(url).then(({ default: widget }) => {
        const el = document.body.appendChild(document.createElement("div"));
        const texts = () => selectors.map((selector) => el.querySelector(selector).textContent);
        let heard = 0;
        document.addEventListener("keydown", () => { heard += 1; });
        const stop = widget.render({ model, el });
        const steps = [texts()];
        el.querySelector("input").dispatchEvent(key);
        for (const [name, value] of changes) {
            model.set(name, value);
            steps.push(texts());
        }
        stop();
        const left = Object.values(listeners).reduce((sum, list) => sum + list.length, 0);
        done({ steps, after: [left, heard, el.children.length] });
    });"""


def follow(browser, widget, changes, *selectors):
    """Change traits from outside, one after the other, and read the texts that selectors find.

    Gives the texts before the first change and after each, and what is left after the clean-up:
    listeners, keys that left the widget, elements.
    """
    state = {k: v for k, v in widget.get_state().items() if not k.startswith("_e")}
    result = browser.execute_async_script(MODEL, widget._esm, state, changes, selectors)
    return result["steps"], result["after"]
