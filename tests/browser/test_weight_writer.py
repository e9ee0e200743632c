"""The weight writer in a browser: the core's numbers, and a page that answers without a kernel."""

import html
import json
import os
from pathlib import Path

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from torch import nn

from qtdqas_lite import FixedCircuit, GeneratedNetwork
from qtdqas_lite.widgets import WeightWriter

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "_build" / "html" / "chapters" / "03-quantum-train.html"
HOST = ROOT / "book" / "_static" / "anyhost.js"
AXE = Path(__file__).parent / "axe.min.js"

CIRCUITS = [
    {"hadamard": hadamard, "entangler": entangler, "rotation": rotation}
    for hadamard in (True, False)
    for entangler in ("chain", "ring")
    for rotation in ("rx", "ry", "rz")
]
# (n_qubits, n_layers, side of the image): the smallest and the largest, all outcomes used and few.
SIZES = [(1, 1, 1), (3, 2, 2), (7, 2, 8), (8, 4, 8), (5, 3, 5), (7, 1, 3)]
WRITE = """
    const [source, configurations, done] = arguments;
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    import(url).then((module) => done(configurations.map(module.write)));"""


# ---- The arithmetic ------------------------------------------------------------------------------


def random_case(n_qubits, n_layers, side, architecture, seed):
    """A network of random numbers in double precision, and the configuration that describes it."""
    generator = torch.Generator().manual_seed(seed)
    circuit = FixedCircuit(n_qubits, n_layers, generator=generator, **architecture)
    target = nn.Linear(side * side, 1).double()
    net = GeneratedNetwork(target, circuit, generator=generator).double()

    def draw(tensor, spread=1.0, centre=0.0):
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.double)
        with torch.no_grad():
            tensor.copy_(centre + spread * noise)

    draw(net.circuit.theta, spread=3)
    for parameter in net.mapping.parameters():
        draw(parameter)
    draw(net.centre, 0.1)
    draw(net.scale, 0.05, 0.3)
    draw(net.raw_mean)
    draw(net.raw_deviation, 0.1, 1.5)
    images = torch.rand(3, side * side, generator=generator, dtype=torch.double)
    with torch.no_grad():
        expected = {
            "probabilities": net.circuit().tolist(),
            "weights": torch.cat([value.flatten() for value in net.weights().values()]).tolist(),
            "logits": net(images)[:, 0].tolist(),
            "predictions": net(images)[:, 0].sigmoid().tolist(),
        }
    numbers = {
        "theta": net.circuit.theta,
        "bit_coefficients": net.mapping.bit_coefficients,
        "channel_coefficient": net.mapping.channel_coefficient,
        "bias": net.mapping.bias,
        "raw_mean": net.raw_mean,
        "raw_deviation": net.raw_deviation,
        "centre": net.centre,
        "scale": net.scale,
        "images": images,
    }
    configuration = {name: tensor.tolist() for name, tensor in numbers.items()}
    return {**configuration, **circuit.configuration()}, expected


@pytest.fixture(scope="module")
def cases():
    drawn = [
        random_case(*size, architecture, seed=100 * i + j)
        for i, size in enumerate(SIZES)
        for j, architecture in enumerate(CIRCUITS)
    ]
    assert len(drawn) == 72
    return drawn


def test_numbers_are_the_cores(browser, cases):
    answers = browser.execute_async_script(WRITE, WeightWriter._esm, [case for case, _ in cases])
    for answer, (case, expected) in zip(answers, cases, strict=True):
        for name, values in expected.items():
            assert answer[name] == pytest.approx(values, abs=1e-5), (name, case)
    # Both count in double precision, so they agree far better than a picture would need.
    worst = max(
        abs(a - b)
        for answer, (_, expected) in zip(answers, cases, strict=True)
        for name, values in expected.items()
        for a, b in zip(answer[name], values, strict=True)
    )
    assert worst < 1e-9


def test_the_comparison_can_fail(browser, cases):
    """Each single change of a configuration shows in the weights, far above the tolerance."""
    case, expected = next(
        (case, expected)
        for case, expected in cases
        if (case["n_qubits"], case["hadamard"], case["rotation"]) == (7, False, "ry")
    )
    nudged = [
        [angle + (1e-3 if q == 3 else 0) for q, angle in enumerate(row)] for row in case["theta"]
    ]
    changes = [
        {"theta": nudged},
        {"theta": case["theta"][::-1]},
        {"theta": [row[::-1] for row in case["theta"]]},
        {"bit_coefficients": case["bit_coefficients"][::-1]},
        {"hadamard": True},
        {"rotation": "rx"},
        {"entangler": "ring" if case["entangler"] == "chain" else "chain"},
        {"bias": case["bias"] + 1e-3},
        {"scale": case["scale"][::-1]},
    ]
    changed = [{**case, **change} for change in changes]
    for change, answer in zip(
        changes, browser.execute_async_script(WRITE, WeightWriter._esm, changed), strict=True
    ):
        assert answer["weights"] != pytest.approx(expected["weights"], abs=1e-4), change


# ---- A page without a kernel ---------------------------------------------------------------------


def page_of(widgets, theme="light"):
    """What a notebook's page holds: the widgets' state, a view for each, and the static host."""
    models = {
        widget.model_id: {"model_module": "anywidget", "state": widget.get_state()}
        for widget in widgets
    }
    state = json.dumps({"version_major": 2, "version_minor": 0, "state": models})
    state = state.replace("</", "<\\/")  # no end tag inside of a script
    views = "".join(
        f"<p>{html.escape(str(widget))}</p>"
        '<script type="application/vnd.jupyter.widget-view+json">'
        f"{json.dumps({'model_id': widget.model_id})}</script>"
        for widget in widgets
    )
    colours = {"light": ("#1d2426", "#fff"), "dark": ("#dfe4e4", "#14191c")}[theme]
    return f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
        <title>Widgets</title><meta name="viewport" content="width=device-width">
        <style>body {{ margin: 0; font-family: sans-serif }}
        body {{ color: {colours[0]}; background: {colours[1]} }}
        main {{ max-width: 56rem; margin: auto; padding: 0 16px }}</style></head>
        <body><main><h1>Widgets</h1>{views}</main>
        <script type="application/vnd.jupyter.widget-state+json">{state}</script>
        <script>{HOST.read_text("utf-8")}</script></body></html>"""


@pytest.fixture
def open_widgets(browser, tmp_path):
    """``open_widgets(widget, ...)`` shows them in one page and gives their elements."""

    def open_(*widgets, theme="light"):
        path = tmp_path / "page.html"
        path.write_text(page_of(widgets, theme), "utf-8")
        browser.get(path.as_uri())
        return wait_for(browser, len(widgets))

    yield open_
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def wait_for(browser, count):
    views = WebDriverWait(browser, 20).until(
        lambda b: (found := b.find_elements(By.CSS_SELECTOR, ".qw-weight-writer")) and found
    )
    WebDriverWait(browser, 20).until(
        lambda b: len(b.find_elements(By.CSS_SELECTOR, ".qw-weight-writer")) == count
    )
    return (
        views
        if len(views) == count
        else browser.find_elements(By.CSS_SELECTOR, ".qw-weight-writer")
    )


SHOWN = """
    const view = arguments[0];
    const one = (selector) => view.querySelector(selector).textContent;
    const all = (selector, read) => [...view.querySelectorAll(selector)].map(read);
    return {
        angles: all(".qw-gate output", (output) => output.textContent),
        bars: all(".qw-bar", (bar) => bar.style.height),
        weights: all(".qw-product > :first-child .qw-cell", (cell) =>
            (cell.matches(".qw-negative") ? "-" : "") + cell.style.getPropertyValue("--share")),
        readout: one(".qw-readout"),
        chances: one(".qw-chances"),
        logit: one(".qw-sum"),
        verdict: one(".qw-verdict"),
        score: one(".qw-score"),
        said: one(".qw-say"),
        formula: one(".qw-formula"),
        selected: view.querySelector(".qw-thumbs :checked").value,
    };"""


def shown(view):
    return view.parent.execute_script(SHOWN, view)


def slider(view, name):
    """The slider that a screen reader would call ``name``."""
    return next(
        s for s in view.find_elements(By.CSS_SELECTOR, "[type=range]") if s.accessible_name == name
    )


def click(view, text):
    """Click the button, or unfold the part, of this name."""
    named = view.find_elements(By.CSS_SELECTOR, "button, summary")
    element = next(element for element in named if element.text == text)
    view.parent.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    element.click()


def test_shows_what_python_says(open_widgets):
    widget = WeightWriter(seed=4)
    (view,) = open_widgets(widget)
    state = shown(view)
    weights = torch.tensor(widget.weights, dtype=torch.double)
    images = torch.tensor(widget.images, dtype=torch.double)
    logits = images @ weights[:-1] + weights[-1]
    right = ((logits > 0).long() == torch.tensor(widget.labels)).sum().item()
    assert state["score"] == f"Right on {right} of 40"
    assert f"logit {logits[0].item():+.2f}".replace("-", "\u2212") in state["logit"]
    assert f"5: {100 * logits[0].sigmoid().item():.0f}\u2009%" in state["chances"]
    assert [w.startswith("-") for w in state["weights"]] == [w < 0 for w in widget.weights]
    assert len(state["bars"]) == 128
    assert len(view.find_elements(By.CSS_SELECTOR, ".qw-unused")) == 128 - 65
    assert f"{widget.theta[0][0] / torch.pi:.2f}".replace("-", "\u2212") in state["angles"][0]


def test_one_angle_moves_everything(open_widgets):
    (view,) = open_widgets(WeightWriter())
    before = shown(view)
    slider(view, "RY angle of q3 in layer 1").send_keys(Keys.ARROW_RIGHT * 15)
    after = shown(view)
    assert sum(a != b for a, b in zip(before["angles"], after["angles"], strict=True)) == 1
    assert sum(a != b for a, b in zip(before["bars"], after["bars"], strict=True)) > 100
    assert sum(a != b for a, b in zip(before["weights"], after["weights"], strict=True)) > 50
    for name in ("readout", "logit", "formula"):
        assert after[name] != before[name], name
    assert "q3 in layer 1: 65 of 65 weights moved" in after["said"]
    click(view, "Reset")
    again = shown(view)
    for name in ("angles", "weights", "logit", "score"):
        assert again[name] == before[name], name


def test_coefficients(open_widgets):
    (view,) = open_widgets(WeightWriter())
    before = shown(view)
    slider(view, "Constant d").send_keys(Keys.ARROW_RIGHT * 20)
    click(view, "The 7 bit coefficients")
    slider(view, "Bit coefficient β2, of q2").send_keys(Keys.ARROW_LEFT * 20)
    slider(view, "Channel coefficient a").send_keys(Keys.HOME)
    after = shown(view)
    assert after["bars"] == before["bars"]  # the circuit is as it was
    assert after["weights"] != before["weights"]
    assert "Channel coefficient a: 65 of 65 weights moved" in after["said"]


def test_images_outcomes_and_random_angles(open_widgets):
    (view,) = open_widgets(WeightWriter())
    before = shown(view)
    view.find_element(By.CSS_SELECTOR, ".qw-thumbs :checked").send_keys(Keys.ARROW_RIGHT * 3)
    after = shown(view)
    assert after["selected"] == "3"
    assert "it is a 5" in after["verdict"]
    assert after["weights"] == before["weights"]

    outcome = slider(view, "Outcome")
    outcome.send_keys(Keys.HOME, Keys.ARROW_RIGHT * 22)
    assert "0010110 = 22" in shown(view)["readout"]
    assert "pixel row 2, column 6" in shown(view)["readout"]
    marked = view.find_elements(By.CSS_SELECTOR, ".qw-product > :first-child .qw-cell")[22]
    assert "qw-marked" in marked.get_attribute("class")
    outcome.send_keys(Keys.END)
    assert "unused" in shown(view)["readout"]

    click(view, "Random angles")
    assert shown(view)["angles"] != after["angles"]


def test_pointing_at_a_weight_marks_its_bar(browser, open_widgets):
    (view,) = open_widgets(WeightWriter())
    point = """
        const [element, kind, clientX] = arguments;
        element.dispatchEvent(new PointerEvent(kind, { bubbles: true, clientX }));"""
    cell = view.find_elements(By.CSS_SELECTOR, ".qw-product > :first-child .qw-cell")[10]
    browser.execute_script(point, cell, "pointerover", 0)
    bars = view.find_elements(By.CSS_SELECTOR, ".qw-bar")
    assert "qw-marked" in bars[10].get_attribute("class")
    assert "pixel row 1, column 2" in shown(view)["readout"]
    place = bars[64].rect
    browser.execute_script(
        point,
        view.find_element(By.CSS_SELECTOR, ".qw-bars"),
        "pointermove",
        place["x"] + place["width"] / 2,
    )
    assert "the bias" in shown(view)["readout"]


def test_two_widgets_keep_apart(open_widgets):
    first, second = open_widgets(
        WeightWriter(), WeightWriter(n_qubits=8, n_layers=3, rotation="rx")
    )
    before = shown(second)
    slider(first, "RY angle of q0 in layer 2").send_keys(Keys.ARROW_LEFT * 10)
    first.find_element(By.CSS_SELECTOR, ".qw-thumbs :checked").send_keys(Keys.ARROW_RIGHT * 2)
    click(first, "Random angles")
    assert shown(second) == before
    assert shown(first)["selected"] == "2"


def test_two_views_of_one_widget_agree(browser, open_widgets):
    widget = WeightWriter()
    first, second = open_widgets(widget, widget)
    slider(first, "RY angle of q0 in layer 2").send_keys(Keys.ARROW_LEFT * 10)
    for name in ("angles", "bars", "weights", "score"):
        assert shown(second)[name] == shown(first)[name]


def test_follows_python_and_cleans_up(browser, open_widgets):
    """As with a kernel: the model changes from outside; after the clean-up, nothing listens."""
    widget = WeightWriter()
    open_widgets(widget)
    state = {k: v for k, v in widget.get_state().items() if not k.startswith("_e")}
    script = """
        const [source, state, done] = arguments;
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
            const text = () => [".qw-gate", ".qw-score", ".qw-layer .qw-small"].map(
                (selector) => el.querySelector(selector).textContent);
            let heard = 0;
            document.addEventListener("keydown", () => { heard += 1; });
            const stop = widget.render({ model, el });
            const steps = [text()];
            el.querySelector("input").dispatchEvent(key);
            model.set("theta", state.theta.map((row) => row.map(() => 1)));
            steps.push(text());
            model.set("rotation", "rx");
            steps.push(text());
            stop();
            const left = Object.values(listeners).reduce((sum, list) => sum + list.length, 0);
            done({ steps, left, heard, children: el.children.length });
        });"""
    result = browser.execute_async_script(script, widget._esm, state)
    first, turned, rebuilt = result["steps"]
    assert first != turned != rebuilt
    assert "0.32" in turned[0]
    assert "RX" in rebuilt[2]
    assert (result["left"], result["heard"], result["children"]) == (0, 0, 0)


def test_smallest_and_largest(open_widgets):
    one_pixel = WeightWriter(n_qubits=1, n_layers=1, images=[[0.5]], labels=[1])
    largest = WeightWriter(n_qubits=8, n_layers=4, hadamard=False, entangler="chain", rotation="rz")
    small, large = open_widgets(one_pixel, largest)
    assert shown(small)["score"].endswith("of 1")
    assert len(shown(large)["angles"]) == 32
    slider(large, "RZ angle of q7 in layer 4").send_keys(Keys.ARROW_RIGHT)
    assert "0 of 65 weights moved" in shown(large)["said"]  # rz without Hadamards does nothing


def test_the_bar_on_top_never_hides_the_focus(browser, window, open_widgets):
    """Tabbing backwards scrolls up, and what has the focus stays below the bar on top."""
    window(375, 700)
    (view,) = open_widgets(WeightWriter())
    view.find_element(By.CSS_SELECTOR, ".qw-thumbs :checked").send_keys(Keys.ARROW_RIGHT)
    script = """
        const [view] = arguments;
        const focused = document.activeElement.getBoundingClientRect();
        return focused.top - view.querySelector(".qw-lead").getBoundingClientRect().bottom;"""
    for _ in range(18):  # up to the buttons
        browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
        assert browser.execute_script(script, view) >= 0


def test_says_the_result_when_the_hand_rests(browser, open_widgets):
    (view,) = open_widgets(WeightWriter())
    live = view.find_element(By.CSS_SELECTOR, "[aria-live=polite]")
    assert live.get_property("textContent") == ""
    slider(view, "RY angle of q3 in layer 1").send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 5).until(lambda b: "Right on" in live.get_property("textContent"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 700, 1280])
def test_fits_and_is_accessible(browser, window, open_widgets, width, theme):
    window(width, 900)
    open_widgets(WeightWriter(), WeightWriter(n_qubits=8, n_layers=3), theme=theme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    browser.execute_script(AXE.read_text("utf-8"))
    violations = browser.execute_script("return axe.run().then((result) => result.violations)")
    assert {v["id"]: [n["html"][:200] for n in v["nodes"]] for v in violations} == {}


# ---- The chapter's page --------------------------------------------------------------------------


@pytest.fixture
def chapter(browser):
    if not CHAPTER.is_file():
        text = f"{CHAPTER.relative_to(ROOT)} is not there: run make book"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    browser.get(CHAPTER.as_uri())
    WebDriverWait(browser, 20).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, ".widget-subarea .qw-weight-writer")
    )
    yield browser.find_element(By.CSS_SELECTOR, ".widget-subarea .qw-weight-writer")
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_answers_in_the_chapter(chapter):
    before = shown(chapter)
    chapter.find_element(By.CSS_SELECTOR, ".qw-gate input").send_keys(Keys.ARROW_LEFT * 15)
    after = shown(chapter)
    for name in ("angles", "bars", "weights", "logit", "said"):
        assert after[name] != before[name], name
    click(chapter, "Reset")
    assert shown(chapter)["weights"] == before["weights"]


def test_fits_in_the_chapter(browser, window, chapter):
    for width in (375, 1000):
        window(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        room = "const e = arguments[0]; return [e.clientWidth, e.scrollWidth]"
        client, scroll = browser.execute_script(room, chapter)
        assert scroll <= client
