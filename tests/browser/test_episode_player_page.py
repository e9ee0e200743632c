"""The episode player in a browser: Python's films, a step at a time, and still until Play."""

import random

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from widget_pages import call, choose, click, episode, follow, named, slider, text

from qtdqas_lite.widgets import EpisodePlayer

SHOWN = """
    const [view, done] = arguments;
    const films = [...view.querySelectorAll(".qw-film")].map(async (film) => {
        const image = film.querySelector("img");
        await image.decode();
        const context = document.createElement("canvas").getContext("2d");
        context.drawImage(image, 0, 0);
        const box = image.getBoundingClientRect();
        return {
            pixel: [...context.getImageData(2, 2, 1, 1).data].slice(0, 3),
            alt: image.alt,
            texts: [...film.querySelectorAll("div")].map((part) => part.textContent),
            size: [box.width, box.height],
        };
    });
    Promise.all(films).then(done);"""


def shown(view):
    return view.parent.execute_async_script(SHOWN, view)


def at(view):
    """The step that stands on top."""
    return int(text(view, ".qw-hint").split()[1])


def wait(view, condition):
    WebDriverWait(view.parent, 120, poll_frequency=0.02).until(lambda _: condition())


def live(view):
    return text(view, "[aria-live=polite]")


def pair(**traits):
    short = episode(3, number=1, reward=0.25)
    return EpisodePlayer({"Before": short, "After": episode(12, number=2, ends=None)}, **traits)


@pytest.fixture
def view(open_widgets):
    return open_widgets(pair())[0]


def count_timers(browser):
    """Count from now on, in the page that is open: the function given says how many run."""
    script = """
        const [start, stop, running] = [setInterval, clearInterval, new Set()];
        window.setInterval = (...all) => { const id = start(...all); running.add(id); return id; };
        window.clearInterval = (id) => { running.delete(id); stop(id); };
        window.running = running;"""
    browser.execute_script(script)
    return lambda: browser.execute_script("return window.running.size")


@pytest.fixture
def timers(browser, view):
    return count_timers(browser)


# ---- What a step shows ---------------------------------------------------------------------------


def test_a_step_is_pythons(browser):
    draw = random.Random(0)
    films = {
        str(k): episode(draw.randint(1, 9), number=k, reward=draw.uniform(-1, 1), ends=ends)
        for k, ends in enumerate(["terminated", "truncated", None] * 5)
    }
    widget = EpisodePlayer(films)
    for step in range(widget.n_steps + 1):
        widget.step = step
        cases = [{"film": film, "step": step} for film in widget.films]
        answers = call(browser, widget, "look", cases)
        assert [answer["total"] for answer in answers] == list(widget.returns.values())
        assert [answer["ending"] for answer in answers] == list(widget.endings.values())
        lasts = [len(film.rewards) for film in films.values()]
        assert [answer["at"] for answer in answers] == [min(step, last) for last in lasts]


def test_the_slider_moves_all_films(view):
    assert [film["pixel"] for film in shown(view)] == [[0, 1, 90], [0, 2, 90]]
    step = slider(view, "Step")
    step.send_keys(Keys.ARROW_RIGHT * 2)
    before, after = shown(view)
    assert (before["pixel"], after["pixel"]) == ([2, 1, 90], [2, 2, 90])
    assert before["texts"] == ["Before", "Step 2 of 3, return 0.50", ""]
    assert after["texts"] == ["After", "Step 2 of 12, return 2", ""]
    assert (before["alt"], after["alt"]) == (
        "Before, step 2 of 3, return 0.50",
        "After, step 2 of 12, return 2",
    )
    step.send_keys(Keys.END)
    before, after = shown(view)
    assert (before["pixel"], after["pixel"]) == ([3, 1, 90], [12, 2, 90])  # the first one has ended
    assert before["texts"][1:] == ["Step 3 of 3, return 0.75", "Terminated: the rules ended it."]
    assert after["texts"][1:] == [
        "Step 12 of 12, return 12",
        "Unfinished: the recording stops here.",
    ]
    said = "Return so far: Before 0.75, terminated; After 12, unfinished"
    assert text(view, ".qw-say > :last-child") == said
    assert step.get_attribute("aria-valuetext") == "12 of 12"
    step.send_keys(Keys.HOME)
    assert at(view) == 0


def test_cut_off(open_widgets):
    films = {"One": episode(1, ends="truncated"), "Many": episode(40, ends="truncated")}
    (view,) = open_widgets(EpisodePlayer(films, step=40))
    ends = [film["texts"][2] for film in shown(view)]
    assert ends == ["Truncated: cut off after 1 step.", "Truncated: cut off after 40 steps."]


@pytest.mark.parametrize(
    ("reward", "said"),
    [(2, "2"), (-1, "\u22121"), (0.9625, "0.96"), (-0.004, "\u22120.0040"), (1e-9, "0.000000")],
)
def test_returns_are_readable(open_widgets, reward, said):
    (view,) = open_widgets(EpisodePlayer({"A": episode(1, reward=reward)}, step=1))
    assert shown(view)[0]["texts"][1] == f"Step 1 of 1, return {said}"


def test_small_pictures_are_enlarged_without_blur(browser, open_widgets):
    films = {"Dots": episode(1, size=(5, 7)), "Usual": episode(1, size=(100, 160))}
    (view,) = open_widgets(EpisodePlayer(films))
    assert [film["size"] for film in shown(view)] == [[22 * 7, 22 * 5], [160, 100]]
    script = "return [...document.images].map((i) => getComputedStyle(i).imageRendering)"
    assert browser.execute_script(script) == ["pixelated", "auto"]


def test_films_stand_side_by_side_where_there_is_room(browser, window, open_widgets):
    for width, rows in ((1280, 1), (656, 1), (320, 2)):
        window(width, 900)
        (view,) = open_widgets(pair())
        films = view.find_elements(By.CSS_SELECTOR, ".qw-film")
        assert len({film.rect["y"] for film in films}) == rows


def test_names_are_text(open_widgets):
    name = "</script><b onclick='x'>${1}"
    (view,) = open_widgets(EpisodePlayer({name: episode(1)}))
    assert text(view, ".qw-name") == name
    assert view.find_elements(By.CSS_SELECTOR, "b") == []


# ---- Playing -------------------------------------------------------------------------------------


def test_nothing_plays_before_play(browser, view):
    browser.execute_async_script("setTimeout(arguments[0], 800)")
    assert (at(view), live(view)) == (0, "")


@pytest.mark.parametrize("reduced", [False, True])
def test_play_shows_every_step_and_stops_at_the_end(browser, view, timers, reduced):
    value = "reduce" if reduced else "no-preference"  # who asks for a film gets it
    features = [{"name": "prefers-reduced-motion", "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_script(
        """
        const [view] = arguments;
        const collect = (selector, list) => new MutationObserver(() => {
            list.push(view.querySelector(selector).textContent);
        }).observe(view.querySelector(selector), { childList: true });
        window.heard = { steps: [], live: [] };
        collect(".qw-hint", window.heard.steps);
        collect("[aria-live=polite]", window.heard.live);""",
        view,
    )
    choose(view, "Speed", "fast")
    click(view, "Play")
    wait(view, lambda: live(view))
    heard = browser.execute_script("return window.heard")
    assert heard["steps"] == [f"Step {step} of 12" for step in range(1, 13)]
    ended = "Return so far: Before 0.75, terminated; After 12, unfinished"
    assert heard["live"] == [f"Step 12 of 12. {ended}"]  # once, and not at every picture
    assert named(view, "button", "Play").is_displayed()
    assert [film["pixel"][0] for film in shown(view)] == [3, 12]
    assert timers() == 0


def test_the_speeds(browser, view):
    """Steps a second, as the documentation has them."""
    script = """
        window.periods = [];
        const start = setInterval;
        window.setInterval = (f, ms) => { window.periods.push(ms); return start(f, 1e6); };"""
    browser.execute_script(script)
    click(view, "Play")
    for speed in ("slow", "fast"):
        choose(view, "Speed", speed)  # while it plays
    periods = browser.execute_script("return window.periods")
    assert [1000 / period for period in periods] == pytest.approx([8, 2, 30])
    click(view, "Pause")
    choose(view, "Speed", "normal")
    assert len(browser.execute_script("return window.periods")) == 3  # and still at rest
    assert at(view) == 0


def test_pause(browser, view, timers):
    click(view, "Play")
    wait(view, lambda: at(view) >= 2)
    assert timers() == 1
    click(view, "Pause")
    step = at(view)
    assert timers() == 0
    wait(view, lambda: live(view))
    assert live(view).startswith(f"Step {step} of 12. ")
    click(view, "Play")
    wait(view, lambda: at(view) > step)


def test_play_at_the_end_starts_again(view):
    slider(view, "Step").send_keys(Keys.END)
    choose(view, "Speed", "slow")
    click(view, "Play")
    assert at(view) == 0
    wait(view, lambda: at(view) == 1)


@pytest.mark.parametrize("hand", ["slider", "back", "forward", "reset"])
def test_a_hand_on_the_step_pauses(view, timers, hand):
    choose(view, "Speed", "slow")
    click(view, "Play")
    wait(view, lambda: at(view) == 1)
    if hand == "slider":
        slider(view, "Step").send_keys(Keys.ARROW_RIGHT)
    else:
        click(view, hand.capitalize())
    assert timers() == 0
    assert at(view) == {"slider": 2, "back": 0, "forward": 2, "reset": 0}[hand]
    assert named(view, "button", "Play").is_displayed()


def test_reset_pauses_where_nothing_changes(view, timers):
    choose(view, "Speed", "slow")
    click(view, "Reset")
    click(view, "Play")
    click(view, "Reset")
    assert timers() == 0


def test_steps_stop_at_both_ends(view):
    click(view, "Back")
    assert at(view) == 0
    click(view, "Forward")
    assert at(view) == 1
    slider(view, "Step").send_keys(Keys.END)
    click(view, "Forward")
    assert at(view) == 12
    click(view, "Back")
    assert at(view) == 11


def test_by_keyboard(view):
    driver = view.parent
    slider(view, "Step").send_keys(Keys.ARROW_RIGHT, Keys.TAB)
    names = []
    for _ in range(5):
        names.append(driver.switch_to.active_element.accessible_name)
        driver.switch_to.active_element.send_keys(Keys.TAB)
    assert names == ["Play", "One step back", "One step forward", "Reset", "normal"]
    named(view, "button", "One step forward").send_keys(Keys.ENTER)
    assert at(view) == 2
    named(view, "[type=radio]", "normal").send_keys(Keys.ARROW_RIGHT)
    assert named(view, "[type=radio]", "fast").is_selected()
    play = named(view, "button", "Play")
    play.send_keys(Keys.SPACE)
    assert play.accessible_name == "Pause"  # the focus stays
    wait(view, lambda: at(view) == 12)
    assert play.accessible_name == "Play"


def test_two_views_agree_and_only_one_plays(browser, open_widgets):
    widget = pair()
    first, second, other = open_widgets(widget, widget, EpisodePlayer({"Other": episode(9)}))
    timers = count_timers(browser)
    choose(second, "Speed", "slow")
    click(first, "Play")
    wait(first, lambda: at(first) == 1)
    click(second, "Play")
    wait(second, lambda: at(second) >= 3)
    assert timers() == 1
    assert {text(view, "button") for view in (first, second)} == {"Play", "Pause"}
    click(first if text(first, "button") == "Pause" else second, "Pause")
    assert shown(first) == shown(second)
    assert at(other) == 0


# ---- With Jupyter --------------------------------------------------------------------------------


def test_follows_python_and_cleans_up(browser, open_widgets):
    widget = pair()
    open_widgets(widget)
    changes = [("step", 3), ("speed", "slow"), ("step", 99), ("step", 0)]  # 99: a link
    steps, after = follow(browser, widget, changes, ".qw-hint", ".qw-end")
    assert [int(step[0].split()[1]) for step in steps] == [0, 3, 3, 12, 0]
    assert [step[1][:10] for step in steps] == ["", *["Terminated"] * 3, ""]
    assert after == [0, 0, 0]


def test_a_view_that_is_removed_plays_no_more(browser, open_widgets):
    widget = pair(speed="fast")
    open_widgets(widget)
    count_timers(browser)
    script = """
        const [source, state, done] = arguments;
        const model = { get: (name) => state[name], on() {}, off() {}, save_changes() {} };
        model.set = (name, value) => { state[name] = value; };
        const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
        import(url).then(({ default: widget }) => {
            const el = document.body.appendChild(document.createElement("div"));
            const stop = widget.render({ model, el });
            el.querySelector("button").click();
            const playing = window.running.size;
            setTimeout(() => {
                stop();
                const last = state.step;
                const left = window.running.size;
                setTimeout(() => done([playing, left, last > 0, state.step - last]), 300);
            }, 150);
        });"""
    state = {k: v for k, v in widget.get_state().items() if not k.startswith("_e")}
    assert browser.execute_async_script(script, widget._esm, state) == [1, 0, True, 0]
