"""The growing circuit in a browser: grow's numbers, on a page without a kernel."""

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from widget_pages import call, choose, click, follow, named, sticks_out, text, violations

from qtdqas_lite.widgets import CircuitGrower

FOLLOWING = [
    *("losses", "accuracies", "weights", "slopes", "theta"),
    *("rival_losses", "rival_accuracies", "rival_weights"),
]
# All kinds of slots, several on one wire of one layer, the first and the last, and as many as go.
SEQUENCES = [
    ([], 0),
    ([0, 143], 1),
    ([130, 30, 77, 12, 140, 3, 99, 55, 21, 64, 131, 7], 2),
    ([43, 37, 49, 36, 48, 42], 3),
]


def configuration(widget):
    state = widget.get_state()
    return {name: value for name, value in state.items() if not name.startswith("_e")}


def tensor(values):
    return torch.tensor(values, dtype=torch.double)


# ---- The arithmetic ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def widgets():
    return [CircuitGrower(choices=choices, seed=seed) for choices, seed in SEQUENCES]


def test_numbers_are_the_packages(browser, widgets):
    """The browser trains what Python trains: both count in double precision."""
    answers = call(browser, CircuitGrower, "growth", [configuration(w) for w in widgets])
    for widget, answer in zip(widgets, answers, strict=True):
        assert sorted(answer) == sorted(FOLLOWING)
        for name in FOLLOWING:
            expected, found = tensor(getattr(widget, name)), tensor(answer[name])
            assert found.shape == expected.shape, name
            assert (found - expected).abs().max() < 1e-6, (name, widget)


def test_the_comparison_can_fail(browser, widgets):
    """Each single change of a configuration shows in the weights, far above the tolerance."""
    widget = widgets[3]
    same = configuration(widget)
    turned = [same["choices"][1], same["choices"][0], *same["choices"][2:]]
    start = same["start"]
    changes = [
        {"choices": turned},
        {"choices": same["choices"][:-1]},
        {"choices": [*same["choices"][:-1], 66]},
        {"labels": same["labels"][::-1]},
        {"start": {**start, "bit_coefficients": start["bit_coefficients"][::-1]}},
        {"start": {**start, "scale": 1.01 * start["scale"]}},
    ]
    changed = [{**same, **change} for change in changes]
    answers = call(browser, CircuitGrower, "growth", changed)
    for change, answer in zip(changes, answers, strict=True):
        apart = tensor(answer["weights"]) - tensor(widget.weights)
        assert apart.abs().max() > 1e-3, change


# ---- A page without a kernel ---------------------------------------------------------------------

SHOWN = """
    const view = arguments[0];
    const all = (selector, read) => [...view.querySelectorAll(selector)].map(read);
    const said = all(".qw-say > span", (line) => line.textContent);
    return {
        result: said[0],
        chosen: said[1],
        slopes: all(".qw-slope", (row) => row.textContent),
        widths: all(".qw-steep", (bar) => parseFloat(bar.style.width)),
        picked: all(".qw-slope input", (radio) => radio.checked).indexOf(true),
        axis: view.querySelector(".qw-options :checked + span").textContent,
        place: all(".qw-place input", (radio) => radio.checked).indexOf(true),
        letters: all("label.qw-place", (place) => place.textContent),
        rival: all("span.qw-place", (place) => place.textContent),
        rows: all("tbody tr", (row) => [...row.children].map((cell) => cell.textContent)),
        points: all(".qw-race polyline", (line) => line.getAttribute("points")),
        weights: all(".qw-maps > .qw-cells .qw-cell", (cell) =>
            (cell.matches(".qw-negative") ? "-" : "") + cell.style.getPropertyValue("--share")),
        disabled: all("button", (b) => b.getAttribute("aria-disabled") === "true" && b.textContent)
            .filter(Boolean),
    };"""


def shown(view):
    return view.parent.execute_script(SHOWN, view)


def signed(value):
    return f"{value:+.3f}".replace("-", "\u2212")


def in_pi(angle):
    value = f"{angle / torch.pi:.2f}\u2009π".replace("-", "\u2212")
    return value.removeprefix("\u2212") if "0.00" in value else value


def long_name(slot):
    return f"{slot.axis.upper()} on q{slot.wire} in layer {slot.layer + 1}"


def check(state, widget):
    """What is shown is what Python says."""
    n_open = len(widget.choices)
    right = [[round(60 * a) for a in widget.accuracies]]
    right += [[round(60 * a) for a in widget.rival_accuracies]]
    losses = widget.losses, widget.rival_losses
    assert state["result"] == (
        f"{n_open} gate{'' if n_open == 1 else 's'} open: {right[0][-1]} of 60 right, "
        f"loss {losses[0][-1]:.2f}. Chance: {right[1][-1]}, loss {losses[1][-1]:.2f}."
    )
    slopes = tensor(widget.slopes).flatten()
    closed = [number for number in range(144) if number not in widget.choices]
    ranked = sorted(closed, key=lambda number: -abs(slopes[number]))[:8]
    named_so = [(widget.slot(number), slopes[number]) for number in ranked]
    assert state["slopes"] == [
        f"{s.axis.upper()} q{s.wire}, layer {s.layer + 1}{signed(slope)}" for s, slope in named_so
    ]
    sizes = slopes[ranked].abs()
    assert tensor(state["widths"]) == pytest.approx(100 * sizes / sizes[0], abs=0.01)
    for letters, slots in (
        (state["letters"], widget.choices),
        (state["rival"], widget.rival[:n_open]),
    ):
        there = [[""] * 8 for _ in range(6)]
        for slot in sorted(map(widget.slot, slots)):
            there[slot.wire][slot.layer] += slot.axis[1].upper()
        assert letters == [text for row in there for text in row]
    theta = tensor(widget.theta).flatten()
    assert len(state["rows"]) == n_open + 1
    for k, row in enumerate(state["rows"]):
        mine = long_name(widget.slot(widget.choices[k - 1])) if k else "nothing"
        rival = long_name(widget.slot(widget.rival[k - 1])) if k else "nothing"
        angle = in_pi(theta[widget.choices[k - 1]]) if k else ""
        numbers = [f"{losses[0][k]:.2f}", str(right[0][k]), rival]
        assert [row[0], *row[2:6]] == [mine, angle, *numbers]
        assert row[6:] == [f"{losses[1][k]:.2f}", str(right[1][k])]
    assert [len(points.split(" ")) for points in state["points"]] == [n_open + 1] * 4
    weights = [*widget.weights, *widget.rival_weights]
    assert [w.startswith("-") for w in state["weights"]] == [w < 0 for w in weights]


def test_shows_what_python_says(open_widgets):
    none, some = CircuitGrower(seed=5), CircuitGrower(choices=[49, 37, 0, 43])
    first, second = open_widgets(none, some)
    check(shown(first), none)
    check(shown(second), some)
    assert shown(first)["disabled"] == ["Undo"]


def test_the_rule(open_widgets):
    """Open the steepest, again and again: as Python's rule, and ahead of chance in the end."""
    widget = CircuitGrower()
    (view,) = open_widgets(widget)
    for _ in range(12):
        state = shown(view)
        assert state["picked"] == 0
        assert state["chosen"].endswith("the steepest.")
        click(view, "Open the steepest")
        widget.open_slot(*widget.steepest)
    state = shown(view)
    check(state, widget)
    assert widget.losses[-1] < 0.1 < widget.rival_losses[-1]
    assert state["disabled"] == ["Open the chosen", "Open the steepest", "Open by chance"]
    for name in state["disabled"]:
        click(view, name)
        assert shown(view)["result"] == "All 12 gates are open. Undo, or reset."
    click(view, "Undo")
    widget.undo()
    check(shown(view), widget)


def test_by_hand(open_widgets):
    widget = CircuitGrower()
    (view,) = open_widgets(widget)
    third = view.find_elements(By.CSS_SELECTOR, ".qw-slope")[2]
    name, slope = third.text.split("\n")[0], shown(view)["slopes"][2][-6:]
    third.click()
    state = shown(view)
    assert state["picked"] == 2
    assert state["chosen"].endswith(f"slope {slope}, number 3 of 144.")
    click(view, "Open the chosen")
    axis, wire, _, layer = name.replace(",", "").split(" ")
    widget.open_slot(int(layer) - 1, axis.lower(), int(wire[1:]))
    check(shown(view), widget)

    choose(view, "Gate", "RZ")
    places = view.find_elements(By.CSS_SELECTOR, "label.qw-place")
    places[8 * 4 + 6].click()
    state = shown(view)
    assert state["chosen"].startswith("Chosen: RZ on q4 in layer 7, slope ")
    assert (state["place"], state["axis"]) == (38, "RZ")
    click(view, "Open the chosen")
    widget.open_slot(6, "rz", 4)
    check(shown(view), widget)

    view.find_elements(By.CSS_SELECTOR, "label.qw-place")[38].click()
    choose(view, "Gate", "RZ")
    state = shown(view)
    assert state["chosen"].startswith("Chosen: RZ on q4 in layer 7, which is open, at ")
    assert (state["picked"], state["disabled"]) == (-1, ["Open the chosen"])
    click(view, "Open the chosen")
    assert "is open. Choose a closed slot." in shown(view)["result"]
    assert len(shown(view)["rows"]) == 3


def test_chance_undo_rival_and_reset(open_widgets):
    (view,) = open_widgets(CircuitGrower(choices=[100]))
    before = shown(view)
    for count in (3, 4):
        click(view, "Open by chance")
        assert len(shown(view)["rows"]) == count
    after = shown(view)
    assert sum(map(len, after["letters"])) == sum(map(len, after["rival"])) == 3
    click(view, "Another rival")
    again = shown(view)
    assert again["letters"] == after["letters"]
    assert [row[:5] for row in again["rows"]] == [row[:5] for row in after["rows"]]
    assert [row[5:] for row in again["rows"]] != [row[5:] for row in after["rows"]]
    for left in (3, 2, 1):
        click(view, "Undo")
        assert len(shown(view)["rows"]) == left
    click(view, "Undo")
    assert shown(view)["result"] == "There is nothing to undo."
    click(view, "Reset")
    again = shown(view)
    for name in ("result", "chosen", "slopes", "letters", "rival", "rows"):
        assert again[name] == before[name], name


def test_by_keyboard(open_widgets):
    """One stop of the Tab key for each group; the arrows choose, Space or Enter opens."""
    widget = CircuitGrower()
    (view,) = open_widgets(widget)
    browser = view.parent

    def press(*keys):
        for key in keys:
            browser.switch_to.active_element.send_keys(key)

    view.find_element(By.CSS_SELECTOR, ".qw-slope :checked").send_keys(Keys.ARROW_DOWN)
    assert shown(view)["picked"] == 1
    slopes = tensor(widget.slopes).flatten()
    second = widget.slot(int(slopes.abs().argsort(descending=True)[1]))
    press(Keys.TAB, Keys.ENTER)
    widget.open_slot(*second)
    check(shown(view), widget)
    assert browser.switch_to.active_element.text == "Open the chosen"
    press(Keys.TAB, Keys.SPACE)
    widget.open_slot(*widget.steepest)
    check(shown(view), widget)
    press(*[Keys.TAB] * 5, Keys.ARROW_RIGHT)  # past the other buttons, to the gates
    axis = shown(view)["axis"].lower()
    assert axis != widget.steepest.axis
    press(Keys.TAB, Keys.ARROW_RIGHT)  # to the circuit, one layer on
    slot = widget.steepest
    assert shown(view)["place"] == (8 * slot.wire + slot.layer + 1) % 48
    press(*[Keys.SHIFT + Keys.TAB] * 7, Keys.ENTER)
    assert len(shown(view)["rows"]) == 4


def test_says_what_was_done_and_not_what_was_before(open_widgets):
    (view,) = open_widgets(CircuitGrower())
    live = view.find_element(By.CSS_SELECTOR, "[aria-live=polite]")

    def said():
        now = shown(view)
        wanted = now["chosen"]
        WebDriverWait(view.parent, 120).until(lambda _: wanted in live.get_property("textContent"))
        return live.get_property("textContent"), now

    click(view, "Open the steepest")
    words, now = said()
    assert words == f"The rule opened {now['rows'][1][0]}. {now['result']} {now['chosen']}"
    view.find_elements(By.CSS_SELECTOR, ".qw-slope")[3].click()
    words, now = said()
    assert words == now["chosen"]
    click(view, "Open the chosen")
    words, now = said()
    assert words == f"You opened {now['rows'][2][0]}. {now['result']} {now['chosen']}"
    gone = now["rows"][2][0]
    click(view, "Undo")
    words, now = said()
    assert words == f"Undone: {gone} is closed. {now['result']} {now['chosen']}"
    at_one = now
    click(view, "Reset")
    words, now = said()
    assert words == f"Back to the start. {now['result']} {now['chosen']}"
    click(view, "Open the steepest")
    words, now = said()
    assert now["result"] == at_one["result"] in words
    names = view.parent.execute_script(
        "return [...arguments[0].querySelectorAll('.qw-race, .qw-tiny')]"
        ".map((e) => e.getAttribute('aria-label'))",
        view,
    )
    first, second = (row[3] for row in now["rows"])
    assert f"with 0 to 1 gates open: yours from {first} to {second}, chance" in names[0]
    assert names[2] == f"Chance opened {now['rows'][1][5]}"


def test_two_widgets_keep_apart_and_two_views_agree(open_widgets):
    widget, other = CircuitGrower(), CircuitGrower(seed=1)
    first, second, third = open_widgets(widget, widget, other)
    before = shown(third)
    click(first, "Open by chance")
    click(second, "Open the steepest")
    click(first, "Another rival")
    assert shown(third) == before
    assert shown(first) == shown(second) != before


def test_follows_python_and_cleans_up(browser, open_widgets):
    widget = CircuitGrower()
    open_widgets(widget)
    changes = [("choices", [7, 100]), ("rival", list(range(12))), ("choices", [7])]
    steps, after = follow(browser, widget, changes, ".qw-hint", "tbody tr:last-child")
    assert [step[0][:7] for step in steps] == ["0 gates", "2 gates", "2 gates", "1 gate "]
    assert "RX on q1 in layer 1" in steps[2][1]
    assert "RX on q0 in layer 1" in steps[3][1]
    assert after == [0, 0, 0]


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_a_full_one_fits(browser, window, open_widgets, width):
    """With all twelve open and everything unfolded; several gates on one wire of one layer."""
    window(width, 900)
    (view,) = open_widgets(CircuitGrower(choices=[43, 37, 49, 36, 48, 42, 143, 0, 1, 2, 3, 4]))
    click(view, "The numbers")
    assert sticks_out(browser, width) == 0
    assert violations(browser) == {}
    assert "XYZ" in shown(view)["letters"]


def test_forced_colours_hide_nothing(browser, open_widgets):
    """Where the system's colours rule, bars, dots, weights and both lines are still drawn."""
    features = [{"name": "forced-colors", "value": "active"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        (view,) = open_widgets(CircuitGrower(choices=[49]))
        script = """
            const paper = getComputedStyle(document.body).backgroundColor;
            const drawn = { ".qw-steep": "borderTopColor", ".qw-mark": "borderTopColor",
                ".qw-maps > .qw-cells .qw-cell": "backgroundColor",
                ".qw-race .qw-mine": "stroke", ".qw-race .qw-chance": "stroke" };
            return Object.entries(drawn).filter(([selector, property]) =>
                getComputedStyle(arguments[0].querySelector(selector))[property] === paper);"""
        assert browser.execute_script("return matchMedia('(forced-colors: active)').matches")
        assert browser.execute_script(script, view) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_hidden_name_of_a_place(open_widgets):
    (view,) = open_widgets(CircuitGrower(choices=[0]))
    choose(view, "Gate", "RX")
    grid = named(view, "[role=radiogroup]", "Slots, by wire and layer")
    names = [radio.accessible_name for radio in grid.find_elements(By.TAG_NAME, "input")]
    assert names[0].startswith("RX on q0 in layer 1, open at ")
    assert names[9].startswith("RX on q1 in layer 2, slope ")
    assert text(view, ".qw-scaffold .qw-opened") == "X"


# ---- The chapter's page --------------------------------------------------------------------------


@pytest.fixture
def chapter(open_in_book):
    return open_in_book("chapters/07-growing-circuits", ".qw-growing-circuit")


def test_answers_in_the_chapter(chapter):
    before = shown(chapter)
    click(chapter, "Open the steepest")
    after = shown(chapter)
    assert after["result"].startswith("1 gate open")
    assert after["slopes"] != before["slopes"]
    click(chapter, "Reset")
    assert shown(chapter)["rows"] == before["rows"]


def test_fits_in_the_chapter(browser, window, chapter):
    for width in (375, 1000):
        window(width, 900)
        assert sticks_out(browser, width) == 0
