"""What every widget keeps: it fits, it can be reached and read, and it says what happened."""

import ipywidgets
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from widget_pages import episode, sticks_out, violations, wait_for

from qtdqas_lite import DataError
from qtdqas_lite.widgets import (
    BilevelLandscape,
    CandidateExplorer,
    CircuitGrower,
    EpisodePlayer,
    RelaxedGate,
    WeightWriter,
    save_html,
)


def player():
    return EpisodePlayer({"Agent": episode(4)})


# The usual one and the largest of each kind, and two that say as much as there is to say.
SHOWN = {
    "explorer": lambda: [
        CandidateExplorer(),
        CandidateExplorer(rotation="ry", entangler="cz-ring", n_qubits=5, n_layers=4),
        CandidateExplorer(hadamard=False, rotation="rz", n_qubits=5, n_layers=1),
    ],
    "grower": lambda: [
        CircuitGrower(),
        CircuitGrower(choices=[43, 37, 49, 0, 5, 143, *range(6, 12)]),
    ],
    "landscape": lambda: [
        BilevelLandscape(),
        BilevelLandscape([2, -2], train_wish=[-2.4, 2.4], xi=0.9, learning_rate=0.3, step=3),
    ],
    "gate": lambda: [RelaxedGate(), RelaxedGate([-4, -4, 4], temperature=0.05, theta=-3)],
    "writer": lambda: [WeightWriter(), WeightWriter(n_qubits=8, n_layers=3)],
    "player": lambda: [
        EpisodePlayer({"Before training": episode(9), "After training": episode(3, number=1)}),
        EpisodePlayer(
            {
                "A long name, of an agent that has learned a little": episode(2, size=(7, 5)),
                "Nobody-ever-gave-a-name-without-a-space-to-an-agent": episode(5, reward=-0.25),
                "Wide": episode(250, size=(200, 700), ends="truncated"),
            },
            step=250,
        ),
    ],
    "all": lambda: [
        *(RelaxedGate(), WeightWriter(), CandidateExplorer(), CircuitGrower(), player()),
        BilevelLandscape(),
    ],
}
CONTROLS = "button, summary, label:has([type=radio]), .qw-slider:not(.qw-gate) input, .qw-gate"


@pytest.fixture(params=SHOWN, scope="module")
def widgets(request):
    return SHOWN[request.param]()


def sizes(browser):
    """Width and height of all controls, by their text."""
    script = """
        return [...document.querySelectorAll(arguments[0])].map((control) => {
            const { width, height } = control.getBoundingClientRect();
            return [control.textContent, width, height];
        });"""
    return browser.execute_script(script, CONTROLS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 700, 1280])
def test_fits_and_is_accessible(browser, window, open_widgets, widgets, width, theme):
    window(width, 900)
    for view in open_widgets(*widgets, theme=theme):
        client, scroll = browser.execute_script(
            "const e = arguments[0]; return [e.clientWidth, e.scrollWidth]", view
        )
        assert scroll <= client
    assert sticks_out(browser, width) == 0
    assert violations(browser) == {}
    assert [size for size in sizes(browser) if min(size[1:]) < 24] == []  # WCAG 2.2, 2.5.8


def test_a_finger_gets_larger_targets(browser, window, open_widgets):
    touch = "Emulation.setTouchEmulationEnabled"
    browser.execute_cdp_cmd(touch, {"enabled": True})
    try:
        open_widgets(
            *(CandidateExplorer(), RelaxedGate(), CircuitGrower(), player(), BilevelLandscape())
        )
        assert browser.execute_script("return matchMedia('(pointer: coarse)').matches")
        assert [size for size in sizes(browser) if size[2] < 44] == []
    finally:
        browser.execute_cdp_cmd(touch, {"enabled": False})


def test_nothing_moves_by_itself(browser, open_widgets, widgets):
    """No animation and no transition: there is nothing that reduced motion would have to stop."""
    open_widgets(*widgets)
    script = """
        return [...document.querySelectorAll(".qw, .qw *")].filter((element) => {
            const style = getComputedStyle(element);
            return style.animationName !== "none" || parseFloat(style.transitionDuration) > 0;
        }).length"""
    assert browser.execute_script(script) == 0


def test_the_bar_on_top_never_hides_the_focus(browser, window, open_widgets, widgets):
    """Tabbing backwards scrolls up, and what has the focus stays below the bar on top."""
    window(375, 700)
    view = open_widgets(*widgets)[0]
    view.find_elements(By.CSS_SELECTOR, "input, button, summary")[-1].send_keys(Keys.ARROW_RIGHT)
    script = """
        const [view] = arguments;
        if (!view.contains(document.activeElement)) return null;
        const focused = document.activeElement.getBoundingClientRect();
        return focused.top - view.querySelector(".qw-lead").getBoundingClientRect().bottom;"""
    seen = []
    while (room := browser.execute_script(script, view)) is not None:
        seen.append(room)
        browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
    assert len(seen) > 5
    assert min(seen) >= 0


def test_says_the_result_when_the_hand_rests(browser, open_widgets, widgets):
    view = open_widgets(*widgets)[0]
    live = view.find_element(By.CSS_SELECTOR, "[aria-live=polite]")
    assert live.get_property("textContent") == ""
    view.find_element(By.CSS_SELECTOR, "[type=range]:not(.qw-scrub input), :checked").send_keys(
        Keys.ARROW_RIGHT
    )
    WebDriverWait(browser, 120).until(lambda b: live.get_property("textContent"))
    lead = view.find_elements(By.CSS_SELECTOR, ".qw-say > span")[-1].get_property("textContent")
    assert lead in live.get_property("textContent")


def test_widgets_are_saved_as_a_page_of_their_own(quiet, tmp_path):
    """One file, in an empty folder, that loads nothing else and answers as the widget does."""
    gate = RelaxedGate(alpha=[1.0, 0.0, -1.0])
    save_html([gate, WeightWriter()], tmp_path / "lesson.html", title="A lesson <1>")
    assert [file.name for file in tmp_path.iterdir()] == ["lesson.html"]
    quiet.get((tmp_path / "lesson.html").as_uri())
    wait_for(quiet, 2)
    assert quiet.title == "A lesson <1>"
    loaded = "return performance.getEntriesByType('resource').map((one) => one.name)"
    assert [name for name in quiet.execute_script(loaded) if not name.startswith("blob:")] == []


def test_what_is_saved_is_a_widget_of_the_package(tmp_path):
    with pytest.raises(DataError, match="widget must be of type BookWidget, got IntSlider"):
        save_html([ipywidgets.IntSlider()], tmp_path / "page.html")
    with pytest.raises(FileNotFoundError):
        save_html(RelaxedGate(), tmp_path / "nowhere" / "page.html")
