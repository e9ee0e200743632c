"""The weight writer in a browser: the core's numbers, and a page that answers without a kernel."""

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from torch import nn
from widget_pages import call, click, follow, slider, sticks_out, text

from qtdqas_lite import FixedCircuit, GeneratedNetwork
from qtdqas_lite.widgets import WeightWriter

CIRCUITS = [
    {"hadamard": hadamard, "entangler": entangler, "rotation": rotation}
    for hadamard in (True, False)
    for entangler in ("chain", "ring")
    for rotation in ("rx", "ry", "rz")
]
# (n_qubits, n_layers, side of the image): the smallest and the largest, all outcomes used and few.
SIZES = [(1, 1, 1), (3, 2, 2), (7, 2, 8), (8, 4, 8), (5, 3, 5), (7, 1, 3)]


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
        "feature_coefficient": net.mapping.feature_coefficient,
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
    answers = call(browser, WeightWriter, "write", [case for case, _ in cases])
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
    for change, answer in zip(changes, call(browser, WeightWriter, "write", changed), strict=True):
        assert answer["weights"] != pytest.approx(expected["weights"], abs=1e-4), change


# ---- A page without a kernel ---------------------------------------------------------------------


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


def test_what_is_said_is_of_this_move(browser, open_widgets):
    (view,) = open_widgets(WeightWriter())
    view.find_element(By.CSS_SELECTOR, ".qw-gate input").send_keys(Keys.ARROW_RIGHT)
    live = view.find_element(By.CSS_SELECTOR, "[aria-live=polite]")
    WebDriverWait(browser, 120).until(lambda b: live.get_property("textContent"))
    assert text(view, ".qw-hint") in live.get_property("textContent")


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
    slider(view, "Feature coefficient a").send_keys(Keys.HOME)
    after = shown(view)
    assert after["bars"] == before["bars"]  # the circuit is as it was
    assert after["weights"] != before["weights"]
    assert "Feature coefficient a: 65 of 65 weights moved" in after["said"]


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
    changes = [("theta", [[1.0] * 7] * 2), ("rotation", "rx")]
    read = ".qw-gate", ".qw-score", ".qw-layer .qw-small"
    (first, turned, rebuilt), after = follow(browser, widget, changes, *read)
    assert first != turned != rebuilt
    assert "0.32" in turned[0]
    assert "RX" in rebuilt[2]
    assert after == [0, 0, 0]


def test_smallest_and_largest(open_widgets):
    one_pixel = WeightWriter(n_qubits=1, n_layers=1, images=[[0.5]], labels=[1])
    largest = WeightWriter(n_qubits=8, n_layers=4, hadamard=False, entangler="chain", rotation="rz")
    small, large = open_widgets(one_pixel, largest)
    assert shown(small)["score"].endswith("of 1")
    assert len(shown(large)["angles"]) == 32
    slider(large, "RZ angle of q7 in layer 4").send_keys(Keys.ARROW_RIGHT)
    assert "0 of 65 weights moved" in shown(large)["said"]  # rz without Hadamards does nothing


# ---- In the book ---------------------------------------------------------------------------------


@pytest.fixture(params=["chapters/03-quantum-train", "book/index"])
def page(open_in_book, request):
    return open_in_book(request.param, ".qw-weight-writer")


def test_answers_in_the_book(page):
    before = shown(page)
    page.find_element(By.CSS_SELECTOR, ".qw-gate input").send_keys(Keys.ARROW_LEFT * 15)
    after = shown(page)
    for name in ("angles", "bars", "weights", "logit", "said"):
        assert after[name] != before[name], name
    click(page, "Reset")
    assert shown(page)["weights"] == before["weights"]


def test_fits_in_the_book(browser, window, page):
    for width in (375, 1000):
        window(width, 900)
        assert sticks_out(browser, width) == 0
        room = "const e = arguments[0]; return [e.clientWidth, e.scrollWidth]"
        client, scroll = browser.execute_script(room, page)
        assert scroll <= client
