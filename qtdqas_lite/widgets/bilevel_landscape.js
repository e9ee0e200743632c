// The bilevel landscape: the toy of chapter 06, and four hypergradients that race on it.
// The gradients are those of qtdqas_lite.bilevel, in closed form; tests/browser compares the two.

const METHODS = ["joint", "first-order", "second-order", "implicit"];
const TRAITS = ["start", "train_wish", "val_wish", "learning_rate", "xi"];
const B = [[1, 0.4], [-0.3, 0.8]];
const C = [[2, 0.6], [0.6, 0.5]];
const [THETA_VAL, MU] = [[1.2, 0.9], 0.4];
const [STEPS, THETA_STEP] = [150, 0.3];
const SHORTEST = 1e-6; // a gradient shorter than this has arrived: its direction is rounding

const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
const times = (matrix, v) => matrix.map((row) => dot(row, v));
const plus = (a, k, b) => [a[0] + k * b[0], a[1] + k * b[1]]; // a + k b
const flipped = ([[a, b], [c, d]]) => [[a, c], [b, d]];
const square = (v) => dot(v, v);
const BT = flipped(B);

/** The hypergradient of F: theta follows alpha to its minimum. */
const trueGradient = ({ val_wish }, alpha) => plus(times(BT, plus(times(B, alpha), -1, THETA_VAL)), MU, plus(alpha, -1, val_wish));

/** What a method takes for it, where theta is. */
function gradientOf(method, { train_wish, val_wish, xi }, theta, alpha) {
  const pull = times(C, plus(theta, -1, times(B, alpha))); // the slope of the training loss in theta
  const direct = (wish) => [0, 1].map((i) => MU * (alpha[i] - wish[i]));
  if (method === "joint") return plus(direct(train_wish), -1, times(BT, pull));
  if (method === "first-order") return direct(val_wish);
  if (method === "second-order") return plus(direct(val_wish), xi, times(BT, times(C, plus(plus(theta, -xi, pull), -1, THETA_VAL))));
  return plus(direct(val_wish), 1, times(BT, plus(theta, -1, THETA_VAL)));
}

/** The validation loss with trained theta, F, and the training loss there. */
const lossesAt = ({ train_wish, val_wish }, alpha) => ({
  validation: (square(plus(times(B, alpha), -1, THETA_VAL)) + MU * square(plus(alpha, -1, val_wish))) / 2,
  training: (MU * square(plus(alpha, -1, train_wish))) / 2,
});

/** From the traits of a BilevelLandscape to everything that it shows. Pure. */
export function race(config) {
  const paths = {};
  const cosines = {};
  const gradients = {};
  for (const method of METHODS) {
    let alpha = config.start;
    let theta = times(B, alpha);
    [paths[method], cosines[method], gradients[method]] = [[], [], []];
    for (let k = 0; k <= STEPS; k++) {
      const [own, right] = [gradientOf(method, config, theta, alpha), trueGradient(config, alpha)];
      const [a, b] = [own, right].map((v) => Math.hypot(...v));
      paths[method].push(alpha);
      gradients[method].push(own);
      cosines[method].push(Math.min(a, b) > SHORTEST ? dot(own, right) / a / b : null);
      theta = plus(theta, -THETA_STEP, times(C, plus(theta, -1, times(B, alpha))));
      alpha = plus(alpha, -config.learning_rate, own);
    }
  }
  const [[a, b], [c, d]] = curvature();
  const right = plus(times(BT, THETA_VAL), MU, config.val_wish);
  const best = [d * right[0] - b * right[1], a * right[1] - c * right[0]].map((value) => value / (a * d - b * c));
  return { paths, cosines, gradients, best };
}

/** The matrix of second derivatives of F. */
const curvature = () => [0, 1].map((i) => [0, 1].map((j) => dot(BT[i], BT[j]) + (i === j ? MU : 0)));

// ---- The map --------------------------------------------------------------------------------------

const REACH = 2.4; // the map shows alpha from -REACH to REACH
const [SIZE, MARGIN] = [300, 14];
const LEVELS = [0.02, 0.08, 0.18, 0.32, 0.5, 0.72, 0.98, 1.28];
const HANDLES = { start: "Start", train_wish: "Training's wish", val_wish: "Validation's wish" };
const place = ([x, y]) => [MARGIN + ((x + REACH) / (2 * REACH)) * SIZE, MARGIN + ((REACH - y) / (2 * REACH)) * SIZE];
const points = (list) => list.map((p) => place(p).map((value) => value.toFixed(1)).join(",")).join(" ");

/** Where a quadratic with this matrix is `height` above its minimum. */
function ellipse([[a, b], [, d]], centre, height) {
  const corner = Math.sqrt(d - (b * b) / a);
  return listOf(61, (i) => {
    const [c, s] = [Math.cos((i * Math.PI) / 30), Math.sin((i * Math.PI) / 30)].map((value) => value * Math.sqrt(2 * height));
    return plus(centre, 1, [(c - (b / Math.sqrt(a)) * (s / corner)) / Math.sqrt(a), s / corner]);
  });
}

/** The plane of alpha. `take(handle, alpha)` runs while a handle is dragged. */
function plane(take) {
  const whole = SIZE + 2 * MARGIN;
  const layer = () => svg("g");
  const [contours, lines, dots] = [layer(), layer(), layer()];
  const marks = {
    start: svg("circle", { r: 7 }),
    train_wish: svg("rect", { x: -6, y: -6, width: 12, height: 12 }),
    val_wish: svg("rect", { x: -6, y: -6, width: 12, height: 12, transform: "rotate(45)" }),
  };
  const handles = Object.fromEntries(Object.entries(marks).map(([name, mark]) => [name, svg("g", { class: `qw-handle qw-${name}` }, svg("circle", { class: "qw-grip", r: 16 }), mark)]));
  const root = svg("svg", { class: "qw-plane", viewBox: `0 0 ${whole} ${whole}`, role: "img" },
    contours, lines, dots, ...Object.values(handles));
  const alphaOf = (event) => {
    const box = root.getBoundingClientRect();
    const along = (at, size) => Math.min(REACH, Math.max(-REACH, (((at / size) * whole - MARGIN) / SIZE) * 2 * REACH - REACH));
    return [along(event.clientX - box.left, box.width), -along(event.clientY - box.top, box.height)].map((value) => Math.round(100 * value) / 100);
  };
  for (const [name, handle] of Object.entries(handles)) {
    handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); });
    handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) take(name, alphaOf(event)); });
  }
  const arrow = (kind, from, gradient) => {
    const length = Math.hypot(...gradient);
    if (length <= SHORTEST) return [];
    const [tip, back] = [plus(from, -0.4 / length, gradient), plus(from, -0.3 / length, gradient)];
    const side = [(gradient[1] * 0.05) / length, (-gradient[0] * 0.05) / length];
    return [svg("polyline", { class: kind, points: points([from, tip, plus(back, 1, side), tip, plus(back, -1, side)]) })];
  };
  let drawn = ""; // the wishes that the contours are for
  return {
    root,
    set(config, { paths, gradients, best }, step, chosen) {
      const wishes = `${config.train_wish} ${config.val_wish}`;
      const circle = [[MU, 0], [0, MU]];
      const ring = (kind, matrix, centre) => LEVELS.map((height) => svg("polyline", { class: kind, points: points(ellipse(matrix, centre, height)) }));
      if (wishes !== drawn) contours.replaceChildren(...ring("qw-training", circle, config.train_wish), ...ring("qw-validation", curvature(), best));
      drawn = wishes;
      lines.replaceChildren(...METHODS.map((method, k) => svg("polyline", { class: `qw-path qw-method-${k}`, points: points(paths[method].slice(0, step + 1)) })));
      const [x, y] = place(best);
      dots.replaceChildren(
        svg("path", { class: "qw-best", d: "M0-9 2.6-3 9-2.8 4 1.2 5.6 7.4 0 3.8-5.6 7.4-4 1.2-9-2.8-2.6-3Z", transform: `translate(${x} ${y})` }),
        ...METHODS.flatMap((method, k) => {
          const at = paths[method][step];
          const [cx, cy] = place(at);
          return [
            ...arrow("qw-true", at, trueGradient(config, at)), ...arrow(`qw-arrow qw-method-${k}`, at, gradients[method][step]),
            svg("circle", { class: `qw-at qw-method-${k}`, cx, cy, r: 7 }), svg("text", { x: cx, y: cy, dy: "0.35em" }, k + 1),
          ];
        }));
      for (const [name, handle] of Object.entries(handles)) {
        handle.setAttribute("transform", `translate(${place(config[name])})`);
        handle.classList.toggle("qw-chosen", name === chosen);
      }
      root.setAttribute("aria-label", `The plane of alpha. ${Object.entries(HANDLES).map(([name, text]) => `${text} at ${vector(config[name])}`).join(", ")}, best place ${vector(best)}. The table has the four methods.`);
    },
  };
}

const vector = (parts) => `(${parts.map((part) => format(part)).join(", ")})`;
const cosineText = (value) => (value === null ? "none" : format(value));

/** The cosines of all steps, a line for each method, and a mark at the step that is shown. */
function cosineChart() {
  const [width, height, left] = [300, 110, 30];
  const x = (k) => left + (k * (width - left - 6)) / STEPS;
  const y = (value) => 8 + ((1 - value) / 2) * (height - 16);
  const level = (value) => [svg("line", { x1: left, x2: width, y1: y(value), y2: y(value) }), svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, format(value, 0))];
  const lines = METHODS.map((_, k) => svg("path", { class: `qw-path qw-method-${k}` }));
  const now = svg("line", { class: "qw-now", y1: 4, y2: height - 4 });
  const root = svg("svg", { class: "qw-cosines", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Cosines over the steps of the race; the table reads them at each step" },
    svg("g", { class: "qw-axis" }, ...[1, 0, -1].flatMap(level)), now, ...lines);
  return {
    root,
    set(cosines, step) {
      METHODS.forEach((method, i) => {
        const list = cosines[method];
        const d = list.map((value, k) => (value === null ? "" : `${k && list[k - 1] !== null ? "L" : "M"}${x(k).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
        lines[i].setAttribute("d", d);
      });
      now.setAttribute("x1", x(step));
      now.setAttribute("x2", x(step));
    },
  };
}

function render({ model, el }) {
  const configuration = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  let now;
  let chosen = "start";

  // ---- The parts --------------------------------------------------------------------------------------

  const take = (name, alpha) => {
    if (name !== chosen) { chosen = name; showChosen(); }
    send(model, { [name]: alpha });
  };
  const map = plane(take);
  const which = choice({ name: "Move", options: Object.entries(HANDLES), choose: (name) => { chosen = name; showChosen(); showMap(); voice.say(`Sliders: ${HANDLES[name]}. ${hint.textContent} ${result.textContent}`); } });
  const along = [0, 1].map((i) => slider({
    name: `α${"₁₂"[i]}`, min: -REACH, max: REACH, step: 0.05, text: (value) => format(value),
    input: (value) => send(model, { [chosen]: model.get(chosen).map((old, j) => (j === i ? value : old)) }),
  }));
  const rate = slider({ name: "Step of α", min: 0.01, max: 0.3, step: 0.01, text: (value) => format(value), input: (value) => send(model, { learning_rate: value }) });
  const ahead = slider({ name: "ξ of second-order", min: 0.02, max: 0.9, step: 0.02, text: (value) => format(value), input: (value) => send(model, { xi: value }) });
  const when = slider({ name: "Step of the race", min: 0, max: STEPS, step: 1, text: (value) => `${value} of ${STEPS}`, input: (value) => send(model, { step: value }) });
  const actions = buttons({ Reset: () => send(model, structuredClone(model.get("_given"))) });
  const chart = cosineChart();
  const body = h("tbody");
  const table = h("table", { class: "qw-table" },
    h("thead", {}, h("tr", {}, ...["Method", "α", "F", "Cosine"].map((text) => h("th", { scope: "col" }, text)))), body);
  const hint = h("span", { class: "qw-hint" });
  const result = h("span");
  const voice = announcer();

  // ---- Showing ------------------------------------------------------------------------------------------

  const shown = () => Math.min(STEPS, Math.max(0, model.get("step")));
  const showMap = () => map.set(configuration(), now, shown(), chosen);

  function showChosen() {
    which.set(chosen);
    along.forEach((part, i) => part.set(model.get(chosen)[i]));
  }

  function showStep() {
    const step = shown();
    const config = configuration();
    when.set(step);
    showMap();
    chart.set(now.cosines, step);
    const heights = METHODS.map((method) => lossesAt(config, now.paths[method][step]).validation);
    body.replaceChildren(...METHODS.map((method, k) => h("tr", {},
      h("th", { scope: "row" }, h("span", { class: `qw-key-dot qw-method-${k}` }, k + 1), method),
      ...[vector(now.paths[method][step]), format(heights[k], 3), cosineText(now.cosines[method][step])].map((text) => h("td", {}, text)))));
    const lead = heights.indexOf(Math.min(...heights));
    hint.textContent = `After ${step} step${step === 1 ? "" : "s"}: F is lowest for ${METHODS[lead]}, ${format(heights[lead], 3)}.`;
    if (step === 0) hint.textContent = `At the start, F is ${format(heights[0], 3)}.`;
    result.textContent = `Cosines: ${METHODS.map((method) => `${method} ${cosineText(now.cosines[method][step])}`).join(", ")}.`;
    voice.say(`${hint.textContent} ${result.textContent}`);
  }

  function showAll() {
    now = race(configuration());
    showChosen();
    rate.set(model.get("learning_rate"));
    ahead.set(model.get("xi"));
    showStep();
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  const root = frame("bilevel-landscape",
    lead([], hint, result),
    h("div", { class: "qw-steps" },
      step(1, "The plane of α: drag the start and the wishes", map.root,
        h("div", { class: "qw-small" }, "Circle: start. Square and dotted rings: the training loss. Diamond: the validation loss by itself. Star and solid rings: F, the validation loss with trained θ. Arrows: each method's way down; dashed, the true one.")),
      step(2, "The race", which.root, ...along.map((part) => part.root), rate.root, ahead.root, when.root, actions),
      step(3, "Cosine with the true hypergradient", table, chart.root)),
    voice.root);
  const ends = [follow(model, TRAITS, showAll), follow(model, ["step"], showStep)];
  showAll();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);
  return () => { for (const end of ends) end(); voice.stop(); root.remove(); };
}

export default { render };
