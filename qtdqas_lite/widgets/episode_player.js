// The episode player: films side by side, all at the step of one slider.

const SPEEDS = { slow: 2, normal: 8, fast: 30 }; // steps a second
const SMALLEST = 160; // pixels of the longer side, below which a picture is enlarged by a whole number

const ENDINGS = {
  "": () => "",
  terminated: () => "Terminated: the rules ended it.",
  truncated: (last) => `Truncated: cut off after ${last} step${last === 1 ? "" : "s"}.`,
  unfinished: () => "Unfinished: the recording stops here.",
};

/** What a film shows at a step: it stays at its last picture. Pure. */
export function look({ film, step }) {
  const last = film.shown.length - 1;
  const at = Math.min(step, last);
  return { at, last, picture: film.shown[at], total: film.returns[at], ending: step >= last ? film.ending : "" };
}

/** Whole rewards need no decimals; small ones need more than two. */
function decimals(returns) {
  if (returns.every(Number.isInteger)) return 0;
  const largest = Math.max(...returns.map(Math.abs));
  return Math.min(6, Math.max(2, 1 - Math.floor(Math.log10(largest))));
}

/** One film: its name, its picture, and what there is to say. */
function screen(film, pictures) {
  const { name, width, height } = film;
  const digits = decimals(film.returns);
  const factor = Math.max(1, Math.floor(SMALLEST / Math.max(width, height)));
  const image = h("img", { class: factor > 1 ? "qw-picture qw-pixels" : "qw-picture", width: factor * width, height: factor * height, decoding: "sync" });
  const facts = h("div", { "aria-hidden": "true" }); // as the picture's own text
  const end = h("div", { class: "qw-end" });
  let drawn;
  return {
    root: h("div", { class: "qw-film" }, h("div", { class: "qw-name" }, name), image, facts, end),
    /** Shows a step, and says in short what there is to see. */
    set(step) {
      const { at, last, picture, total, ending } = look({ film, step });
      const sum = format(total, digits);
      const text = `step ${at} of ${last}, return ${sum}`;
      if (picture !== drawn) image.src = `data:image/png;base64,${pictures[picture]}`;
      drawn = picture;
      image.alt = `${name}, ${text}`;
      facts.textContent = text.replace("s", "S");
      end.textContent = ENDINGS[ending](last);
      return `${name} ${sum}${ending && `, ${ending}`}`;
    },
  };
}

function render({ model, el }) {
  const n = model.get("n_steps");
  let timer; // of the film that runs
  let running = false; // whether a change of the step is the film's own

  // ---- The parts --------------------------------------------------------------------------------------

  const screens = model.get("films").map((film) => screen(film, model.get("pictures")));
  const go = (step) => send(model, { step: Math.min(n, Math.max(0, step)) });
  const actions = buttons({
    Play: () => (timer === undefined ? play() : rest()),
    Back: () => go(model.get("step") - 1),
    Forward: () => go(model.get("step") + 1),
    Reset: () => { rest(); send(model, structuredClone(model.get("_given"))); },
  });
  const [playing, back, forward] = actions.children;
  back.setAttribute("aria-label", "One step back");
  forward.setAttribute("aria-label", "One step forward");
  const slide = slider({ name: "Step", min: 0, max: n, step: 1, input: go, text: (step) => `${step} of ${n}` });
  const speed = choice({ name: "Speed", options: Object.keys(SPEEDS).map((name) => [name, name]), choose: (value) => send(model, { speed: value }) });
  const at = h("span", { class: "qw-hint" });
  const result = h("span");
  const voice = announcer();

  // ---- Playing ------------------------------------------------------------------------------------------

  function play() {
    if (model.get("step") >= n) go(0);
    voice.stop();
    playing.textContent = "Pause";
    clearInterval(timer);
    timer = setInterval(tick, 1000 / SPEEDS[model.get("speed")]);
  }

  function tick() {
    running = true;
    go(model.get("step") + 1);
    running = false;
    if (model.get("step") >= n) rest();
  }

  /** Nothing runs any more, and a screen reader hears what there is to see. */
  function rest() {
    clearInterval(timer);
    timer = undefined;
    playing.textContent = "Play";
    voice.say(`${at.textContent}. ${result.textContent}`);
  }

  // ---- Showing ------------------------------------------------------------------------------------------

  function showStep() {
    const step = Math.min(n, Math.max(0, model.get("step"))); // a link may lead to a longer film
    const texts = screens.map((film) => film.set(step));
    slide.set(step);
    at.textContent = `Step ${step} of ${n}`;
    result.textContent = `Return so far: ${texts.join("; ")}`;
    if (!running) rest(); // a hand on the slider, a link, or another view of this player
  }

  function showSpeed() {
    speed.set(model.get("speed"));
    if (timer !== undefined) play();
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  const root = frame("episode-player",
    lead([], at, result),
    slide.root,
    h("div", { class: "qw-controls" }, actions, speed.root),
    h("div", { class: "qw-films" }, ...screens.map((film) => film.root)),
    voice.root);
  const ends = [follow(model, ["step"], showStep), follow(model, ["speed"], showSpeed)];
  showSpeed();
  showStep();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);
  return () => {
    for (const end of ends) end();
    clearInterval(timer);
    voice.stop();
    root.remove();
  };
}

export default { render };
