"""The relaxed gate in a browser: the core's numbers, and a sphere that tilts without a kernel."""

import re

import numpy as np
import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from widget_pages import call, click, follow, slider, sticks_out, text

from qtdqas_lite import RelaxedCircuit
from qtdqas_lite.simulator.gates import rotation_gates
from qtdqas_lite.widgets import RelaxedGate

GATES = ("rx", "ry", "rz")
START = {"alpha": [1, 0.5, 0], "temperature": 1, "theta": 1.9}


# ---- The arithmetic ------------------------------------------------------------------------------


def random_case(seed):
    """Logits, temperature and angle, and what the package makes of them."""
    generator = torch.Generator().manual_seed(seed)
    alpha = 3 * torch.randn(3, generator=generator, dtype=torch.double)
    theta = 4 * torch.randn((), generator=generator, dtype=torch.double)
    temperature = 10 ** torch.empty(()).uniform_(-1.5, 1, generator=generator).item()
    circuit = RelaxedCircuit(1, 1, entanglers=("none",), hadamards=(False,)).double()
    circuit.temperature = temperature  # now, because a buffer has the circuit's precision
    with torch.no_grad():
        circuit.alpha["rotation"].copy_(alpha)
        circuit.theta.fill_(theta)
        weights = circuit.mixture()["rotation"][0, 0]
        gate = circuit.layers(circuit.theta).gates[0, 0]
    plain = torch.stack([rotation_gates(name, theta).cdouble() for name in GATES])
    total = torch.einsum("k,kab->ab", weights.cdouble(), plain)
    off = (total.mH @ total - torch.eye(2)).abs().max()
    pauli = torch.tensor([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]).cdouble()
    state = gate[:, 0]
    expected = {
        "weights": weights,
        "sum": torch.view_as_real(total),
        "gate": torch.view_as_real(gate),
        "deviation": off,
        "kappa": torch.linalg.vector_norm(total[:, 0]),
        "point": torch.einsum("a,kab,b->k", state.conj(), pauli, state).real,
    }
    case = {"alpha": alpha.tolist(), "temperature": temperature, "theta": theta.item()}
    return case, {name: value.tolist() for name, value in expected.items()}


def test_numbers_are_the_cores(browser):
    cases = [random_case(seed) for seed in range(80)]
    answers = call(browser, RelaxedGate, "mix", [case for case, _ in cases])
    for answer, (case, expected) in zip(answers, cases, strict=True):
        for name, value in expected.items():
            assert np.allclose(answer[name], value, rtol=0, atol=1e-12), (name, case)
        widget = RelaxedGate(**case)
        for name in ("weights", "axis", "angle", "kappa", "deviation", "gate"):
            assert np.allclose(answer[name], getattr(widget, name), rtol=0, atol=1e-12), (
                name,
                case,
            )


def test_extremes(browser):
    """One-hot weights give one gate, and no logit is too large."""
    one_hot = [
        {"alpha": [4 if j == k else -4 for j in range(3)], "temperature": 0.1, "theta": 1.3}
        for k in range(3)
    ]
    answers = call(browser, RelaxedGate, "mix", one_hot)
    for name, answer in zip(GATES, answers, strict=True):
        gate = rotation_gates(name, torch.tensor(1.3, dtype=torch.double)).cdouble()
        for shown in ("sum", "gate"):
            assert np.allclose(answer[shown], torch.view_as_real(gate), rtol=0, atol=1e-12)
        assert abs(answer["deviation"]) < 1e-12
    huge = {"alpha": [1e6, -1e6, 1e6], "temperature": 1e-6, "theta": np.pi}
    (answer,) = call(browser, RelaxedGate, "mix", [huge])
    assert answer["weights"] == [0.5, 0, 0.5]


def test_the_comparison_can_fail(browser):
    changes = [
        {"alpha": [1, 0.5, 1e-3]},
        {"alpha": [0.5, 1, 0]},
        {"temperature": 1.001},
        {"theta": 1.901},
        {"theta": -1.9},
    ]
    cases = [START, *({**START, **change} for change in changes)]
    same, *others = call(browser, RelaxedGate, "mix", cases)
    for change, answer in zip(changes, others, strict=True):
        assert not np.allclose(answer["gate"], same["gate"], rtol=0, atol=1e-5), change


# ---- A page without a kernel ---------------------------------------------------------------------

SHOWN = """
    const view = arguments[0];
    const one = (selector) => view.querySelector(selector).textContent;
    const all = (selector, read) => [...view.querySelectorAll(selector)].map(read);
    return {
        mixture: one(".qw-hint"),
        result: one(".qw-say > :last-child"),
        sliders: all(".qw-slider output", (output) => output.textContent),
        bars: all(".qw-fill", (bar) => Number(bar.style.getPropertyValue("--share"))),
        sphere: view.querySelector(".qw-sphere").getAttribute("aria-label"),
        axis: view.querySelector(".qw-axis:not(.qw-behind)").getAttribute("d"),
        tip: ["cx", "cy"].map((name) => Number(view.querySelector(".qw-tip").getAttribute(name))),
        matrices: all(".qw-matrix", (matrix) => matrix.getAttribute("aria-label")),
        off: one(".qw-matrices"),
    };"""


def shown(view):
    return view.parent.execute_script(SHOWN, view)


def numbers(said):
    """The numbers of a text, in order."""
    return [float(n) for n in re.findall(r"-?\d+\.\d+", said.replace("\u2212", "-"))]


def test_shows_what_python_says(open_widgets):
    widget = RelaxedGate([0.3, -1, 1.2], temperature=0.7, theta=-2)
    (view,) = open_widgets(widget)
    state = shown(view)
    assert numbers(state["mixture"]) == pytest.approx(widget.weights, abs=0.0051)
    said = [widget.kappa, widget.angle / np.pi, *widget.axis]
    assert numbers(state["result"]) == pytest.approx(said, abs=0.0051)
    assert state["bars"] == pytest.approx(widget.weights)
    assert numbers(" ".join(state["sliders"]))[:5] == [0.3, -1, 1.2, 0.7, -0.64]
    assert f"{widget.deviation:.3f}" in state["off"]
    entries = re.sub(r"\u2212 (\S+)i", "+ -\\1i", state["matrices"][1])
    assert numbers(entries) == pytest.approx(np.array(widget.gate).flatten(), abs=0.0051)
    assert numbers(state["sphere"])[:3] == pytest.approx(widget.axis, abs=0.0051)


def projected(point, view=-25):
    """Where the picture has a point of the sphere: seen from 22.5 degrees above the equator."""
    up, around = np.pi / 8, np.radians(view)
    right = np.array([-np.sin(around), np.cos(around), 0])
    eye = [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)]
    return 100 * right @ point, -100 * np.cross(eye, right) @ point


def test_the_axis_tilts(open_widgets):
    (view,) = open_widgets(RelaxedGate([0, 0, 0]))
    before = shown(view)
    assert before["tip"] == pytest.approx(projected([3**-0.5] * 3), abs=0.06)
    slider(view, "Logit of RZ").send_keys(Keys.ARROW_RIGHT * 20)  # to 1
    after = shown(view)
    soft = np.exp([0, 0, 1])
    assert after["tip"] == pytest.approx(projected(soft / np.linalg.norm(soft)), abs=0.06)
    assert after["tip"][1] < before["tip"][1]  # upwards, to Z
    for name in ("mixture", "result", "bars", "sphere", "axis", "matrices", "off"):
        assert after[name] != before[name], name
    turn = slider(view, "Turn the view")
    turn.send_keys(Keys.ARROW_RIGHT * 25)  # from the side of X
    turned = shown(view)
    assert turned["tip"] == pytest.approx(projected(soft / np.linalg.norm(soft), 0), abs=0.06)
    assert turned["matrices"] == after["matrices"]


@pytest.mark.parametrize("k", range(3))
def test_one_hot_snaps_to_a_gate(open_widgets, k):
    name = GATES[k].upper()
    (view,) = open_widgets(RelaxedGate(theta=0.5 * np.pi))
    click(view, f"Only {name}")
    state = shown(view)
    assert state["result"] == f"= {name}(0.50\u2009π), one gate alone"
    assert state["bars"] == pytest.approx([float(j == k) for j in range(3)])
    assert numbers(state["sphere"])[:3] == [float(j == k) for j in range(3)]
    assert "off by 0.000" in state["off"]
    first, second = state["matrices"]
    assert first.split(":")[1] == second.split(":")[1]
    # State 0 goes to where a quarter turn about this axis takes it.
    assert numbers(state["sphere"])[3:] == [[0, -1, 0], [1, 0, 0], [0, 0, 1]][k]


def test_the_other_controls(open_widgets):
    (view,) = open_widgets(RelaxedGate())
    before = shown(view)
    slider(view, "Temperature").send_keys(Keys.END)  # 10: nearly even
    warm = shown(view)
    assert max(warm["bars"]) - min(warm["bars"]) < 0.05
    slider(view, "Temperature").send_keys(Keys.HOME)  # 0.03: decided
    assert shown(view)["bars"] == pytest.approx([1, 0, 0], abs=1e-6)
    click(view, "A third each")
    assert shown(view)["bars"] == pytest.approx([1 / 3] * 3)
    slider(view, "Angle θ").send_keys(Keys.END)  # half a turn stays half a turn
    assert "1.00\u2009π" in shown(view)["result"]
    assert "off by 0.667" in shown(view)["off"]
    click(view, "Reset")
    assert shown(view) == before


def test_two_widgets_keep_apart_and_two_views_agree(open_widgets):
    widget, other = RelaxedGate(), RelaxedGate()
    first, second, third = open_widgets(widget, widget, other)
    before = shown(third)
    slider(first, "Logit of RY").send_keys(Keys.ARROW_RIGHT * 9)
    click(second, "Only RZ")
    slider(first, "Angle θ").send_keys(Keys.ARROW_LEFT * 9)
    assert shown(third) == before
    assert shown(first) == shown(second) != before


def test_follows_python_and_cleans_up(browser, open_widgets):
    widget = RelaxedGate()
    open_widgets(widget)
    changes = [("alpha", [0, 0, 0]), ("temperature", 2), ("theta", 0)]
    steps, after = follow(browser, widget, changes, ".qw-hint", ".qw-say > :last-child")
    assert [step[0][:4] for step in steps] == ["0.51", "0.33", "0.33", "0.33"]
    assert "0.00\u2009π" in steps[3][1]
    assert after == [0, 0, 0]


# ---- The chapter's page --------------------------------------------------------------------------


@pytest.fixture
def chapter(open_in_book):
    return open_in_book("chapters/05-relaxed-gate-mixture", ".qw-relaxed-gate")


def test_answers_in_the_chapter(chapter):
    before = shown(chapter)
    chapter.find_element(By.CSS_SELECTOR, "[type=range]").send_keys(Keys.ARROW_LEFT * 9)
    assert shown(chapter)["matrices"] != before["matrices"]
    click(chapter, "Only RY")
    assert "= RY(" in text(chapter, ".qw-say")
    click(chapter, "Reset")
    assert shown(chapter) == before


def test_fits_in_the_chapter(browser, window, chapter):
    for width in (375, 1000):
        window(width, 900)
        assert sticks_out(browser, width) == 0
