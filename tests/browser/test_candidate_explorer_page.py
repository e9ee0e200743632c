"""The candidate explorer in a browser: the package's verdicts, on a page without a kernel."""

import itertools

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from widget_pages import call, choose, click, follow, named, slider, sticks_out

from qtdqas_lite import Candidate, diagnose, paper_space
from qtdqas_lite.widgets import CandidateExplorer

DEAD = {1, 3, 4, 6, 9, 12}
ENTANGLERS = CandidateExplorer.class_traits()["entangler"].values
SETTINGS = [
    dict(zip(("hadamard", "entangler", "rotation", "n_layers", "n_qubits"), values, strict=True))
    for values in itertools.product(
        (True, False), ENTANGLERS, ("rx", "ry", "rz"), (1, 2, 3, 4), (3, 4, 5)
    )
]


def candidate_of(setting):
    return Candidate(
        setting["n_qubits"],
        setting["hadamard"],
        (setting["entangler"],) * setting["n_layers"],
        ((setting["rotation"],) * setting["n_qubits"],) * setting["n_layers"],
    )


# ---- The arithmetic ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theta():
    generator = torch.Generator().manual_seed(11)
    return 3 * torch.randn(4, 4, 5, generator=generator, dtype=torch.double)


@pytest.fixture(scope="module")
def candidates():
    assert len(SETTINGS) == 432
    return [candidate_of(setting) for setting in SETTINGS]


def explored(browser, settings, theta):
    configurations = [{**setting, "theta": theta.tolist()} for setting in settings]
    return call(browser, CandidateExplorer, "explore", configurations)


def test_verdicts_are_the_packages(browser, candidates, theta):
    """All that can be chosen: live or dead, why, the rank, and the number in the paper."""
    answers = explored(browser, SETTINGS, theta)
    for report, answer in zip(diagnose(candidates).reports, answers, strict=True):
        candidate = report.candidate
        twelve = list(paper_space(candidate.n_qubits, candidate.n_layers))
        number = twelve.index(candidate) + 1 if candidate in twelve else None
        said = answer["live"], answer["reason"], answer["rank"], answer["number"]
        assert said == (report.live, report.reason, report.rank, number), candidate
        if number:
            assert answer["live"] == (number not in DEAD)


def test_probabilities_are_the_cores(browser, candidates, theta):
    answers = explored(browser, SETTINGS, theta)
    for candidate, answer in zip(candidates, answers, strict=True):
        circuit = candidate.circuit(generator=torch.Generator()).double()
        with torch.no_grad():
            used = theta[:, : candidate.n_layers, : candidate.n_qubits]
            expected = torch.stack([circuit.run(draw) for draw in used])
        apart = torch.tensor(answer["probabilities"], dtype=torch.double) - expected
        assert apart.abs().max() < 1e-12, candidate


def test_the_comparison_can_fail(browser, theta):
    """Each single change shows in the probabilities, far above the tolerance."""
    setting = {
        **{"hadamard": False, "entangler": "ring", "rotation": "ry"},
        **{"n_layers": 3, "n_qubits": 4},
    }
    nudged = theta.clone()
    nudged[1, 2, 3] += 1e-3
    changes = [{"hadamard": True}, {"rotation": "rx"}, {"n_layers": 2}]
    changes += [{"entangler": name} for name in ENTANGLERS if name != "ring"]
    settings = [setting, *({**setting, **change} for change in changes)]
    same, *others = explored(browser, settings, theta)
    others += explored(browser, [setting], nudged) + explored(browser, [setting], theta.flip(2))
    expected = torch.tensor(same["probabilities"])
    for answer in others:
        apart = torch.tensor(answer["probabilities"]) - expected
        assert apart.abs().max() > 1e-5


# ---- A page without a kernel ---------------------------------------------------------------------

SHOWN = """
    const view = arguments[0];
    const one = (selector) => view.querySelector(selector).textContent;
    const all = (selector, read) => [...view.querySelectorAll(selector)].map(read);
    return {
        verdict: one(".qw-hint"),
        number: one(".qw-say > .qw-small"),
        chosen: all("input:checked + span", (span) => span.textContent),
        charts: all(".qw-bars", (chart) => [...chart.children].map((bar) => bar.style.height)),
        gates: all(".qw-drawing .qw-wide", (box) => box.textContent),
        layer: one(".qw-drawing .qw-small"),
        readout: one(".qw-readout"),
        spread: one(".qw-spread"),
        end: Number(one(".qw-tick")),
    };"""


def shown(view):
    return view.parent.execute_script(SHOWN, view)


def check(state, widget):
    """What is shown is what Python says."""
    n, count = widget.n_qubits, 2**widget.n_qubits
    angles = n * widget.n_layers
    moves = f"its {angles} angles move the probabilities in {widget.rank} independent direction"
    assert state["verdict"].startswith(
        f"Live: {moves}" if widget.live else f"Dead: {widget.reason}."
    )
    number = f"Number {widget.number} of" if widget.number else "Not one of"
    assert state["number"] == f"{number} the paper's twelve circuits."
    assert state["gates"] == [widget.rotation.upper()] * n
    assert state["layer"].startswith(
        f"Layer, {widget.n_layers} times" if angles > n else "Layer, once"
    )
    start = "H" if widget.hadamard else "none"
    chosen = [start, widget.entangler, widget.rotation.upper(), str(widget.n_layers), str(n)]
    assert state["chosen"] == chosen + ([str(widget.number)] if widget.number else [])
    scaled = count * torch.tensor(widget.probabilities, dtype=torch.double)
    assert scaled.max() <= state["end"] * (1 + 1e-9)
    heights = torch.tensor([[float(bar[:-1]) for bar in chart] for chart in state["charts"]])
    assert torch.allclose(heights.double(), 100 * scaled / state["end"], atol=1e-3)
    spread = (scaled.amax(0) - scaled.amin(0)).max().item()
    moved = f"The draws differ, by up to {spread:.2f}."
    assert state["spread"] == (moved if widget.live else "All four draws are the same.")


def test_shows_what_python_says(open_widgets):
    widget = CandidateExplorer(rotation="ry", entangler="ring", n_qubits=4, n_layers=3)
    (view,) = open_widgets(widget)
    state = shown(view)
    check(state, widget)
    assert state["layer"] == "Layer, 3 times: 4 CNOTs, then RY"
    first = [f"{16 * draw[0]:.2f}" for draw in widget.probabilities]
    assert state["readout"] == f"outcome 0000: 24p = {', '.join(first)}"


CHOICES = {
    "Start": ("hadamard", {"none": False, "H": True}),
    "Entangler": ("entangler", dict(zip(ENTANGLERS, ENTANGLERS, strict=True))),
    "Rotation": ("rotation", {"RX": "rx", "RY": "ry", "RZ": "rz"}),
    "Layers": ("n_layers", {str(n): n for n in (1, 2, 3, 4)}),
    "Qubits": ("n_qubits", {str(n): n for n in (3, 4, 5)}),
}


@pytest.mark.parametrize("group", CHOICES)
def test_every_choice(open_widgets, group):
    widget = CandidateExplorer(hadamard=False, rotation="ry")
    (view,) = open_widgets(widget)
    trait, options = CHOICES[group]
    for option, value in reversed(options.items()):
        choose(view, group, option)
        setattr(widget, trait, value)
        check(shown(view), widget)


def test_the_papers_twelve(open_widgets):
    """Dead circuits stand still when new angles are drawn, live ones move."""
    (view,) = open_widgets(CandidateExplorer(n_qubits=4))
    for report in diagnose(paper_space(4, 2)).reports:
        choose(view, "In the paper", str(report.number))
        before = shown(view)
        click(view, "New random angles")
        after = shown(view)
        assert after["verdict"] == before["verdict"]
        assert f"Number {report.number} " in after["number"]
        if report.live:
            assert after["verdict"].startswith("Live: ")
            assert f" in {report.rank} independent directions" in after["verdict"]
            assert after["charts"] != before["charts"]
            assert after["spread"].startswith("The draws differ")
        else:
            assert after["verdict"] == f"Dead: {report.reason}."
            assert report.number in DEAD
            rounded = [
                [[round(float(bar[:-1]), 6) for bar in chart] for chart in state["charts"]]
                for state in (before, after)
            ]
            assert rounded[0] == rounded[1]
            assert after["spread"] == "All four draws are the same."


def test_by_keyboard(open_widgets):
    """One stop of the Tab key for each choice; the arrows choose."""
    (view,) = open_widgets(CandidateExplorer())
    first = named(view, "[role=radiogroup]", "Start").find_element(By.CSS_SELECTOR, ":checked")
    first.send_keys(Keys.ARROW_LEFT)  # none
    browser = view.parent
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        browser.switch_to.active_element.send_keys(key)
    state = shown(view)
    assert state["chosen"] == ["none", "ring", "RY", "3", "4", "11"]
    browser.switch_to.active_element.send_keys(Keys.TAB, Keys.ARROW_RIGHT)  # number 12
    assert shown(view)["verdict"].startswith("Dead: RZ changes phases alone")
    assert shown(view)["verdict"].endswith("one outcome stays certain.")


def test_reset_and_outcomes(browser, open_widgets):
    (view,) = open_widgets(CandidateExplorer(rotation="ry", n_qubits=4))
    before = shown(view)
    outcome = slider(view, "Outcome")
    outcome.send_keys(Keys.HOME, Keys.ARROW_RIGHT * 5)
    assert "outcome 0101: 24p" in shown(view)["readout"]
    assert len(view.find_elements(By.CSS_SELECTOR, ".qw-bar.qw-marked")) == 4
    outcome.send_keys(Keys.END)
    choose(view, "Qubits", "3")  # outcome 15 is gone
    assert "outcome 111:" in shown(view)["readout"]
    choose(view, "Rotation", "RZ")
    choose(view, "Layers", "4")
    click(view, "New random angles")
    click(view, "Reset")
    again = shown(view)
    for name in ("verdict", "number", "chosen", "gates", "spread"):  # an axis shrinks late
        assert again[name] == before[name], name
    point = """
        const bars = arguments[0], box = bars.getBoundingClientRect();
        const clientX = box.left + (9.5 / 16) * box.width;
        bars.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX }));"""
    browser.execute_script(point, view.find_elements(By.CSS_SELECTOR, ".qw-bars")[2])
    assert "outcome 1001:" in shown(view)["readout"]


def test_two_widgets_keep_apart_and_two_views_agree(open_widgets):
    widget, other = CandidateExplorer(), CandidateExplorer()
    first, second, third = open_widgets(widget, widget, other)
    before = shown(third)
    choose(first, "Rotation", "RY")
    choose(second, "Qubits", "5")
    click(first, "New random angles")
    assert shown(third) == before
    assert shown(first) == shown(second) != before


def test_follows_python_and_cleans_up(browser, open_widgets):
    widget = CandidateExplorer()
    open_widgets(widget)
    changes = [("rotation", "ry"), ("n_qubits", 5), ("theta", [[[0] * 5] * 4] * 4)]
    read = ".qw-hint", ".qw-readout", ".qw-spread"
    steps, after = follow(browser, widget, changes, *read)
    assert [step[0][:5] for step in steps] == ["Dead:", "Live:", "Live:", "Live:"]
    assert "outcome 000:" in steps[1][1]
    assert "outcome 00000:" in steps[2][1]
    assert "All four" in steps[3][2]  # equal angles, and it is live all the same
    assert after == [0, 0, 0]


# ---- The chapter's page --------------------------------------------------------------------------


@pytest.fixture
def chapter(open_in_book):
    return open_in_book("chapters/04-search-space", ".qw-candidate-explorer")


def test_answers_in_the_chapter(chapter):
    for number in (2, 6, 8, 9):
        choose(chapter, "In the paper", str(number))
        before = shown(chapter)
        assert before["verdict"].startswith("Dead" if number in DEAD else "Live")
        click(chapter, "New random angles")
        assert (shown(chapter)["spread"] == "All four draws are the same.") == (number in DEAD)


def test_fits_in_the_chapter(browser, window, chapter):
    for width in (375, 1000):
        window(width, 900)
        assert sticks_out(browser, width) == 0
