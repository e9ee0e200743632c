// The relaxed gate: logits -> weights -> a rotation about a tilted axis, all computed here.
// The arithmetic is that of qtdqas_lite.RelaxedCircuit; tests/browser compares the two.

const GATES = ["RX", "RY", "RZ"];
const TRAITS = ["alpha", "temperature", "theta"];

/** From the traits of a RelaxedGate to everything that it shows. Matrices are rows of [real, imaginary]. */
export function mix({ alpha, temperature, theta }) {
  const top = Math.max(...alpha);
  const powers = alpha.map((logit) => Math.exp((logit - top) / temperature));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const weights = powers.map((power) => power / total);
  const length = Math.hypot(...weights);
  const axis = weights.map((weight) => weight / length);
  const [cosine, sine] = [Math.cos(theta / 2), length * Math.sin(theta / 2)];
  const kappa = Math.hypot(cosine, sine);
  const angle = 2 * Math.atan2(sine, cosine);
  const sum = matrix(cosine, axis.map((part) => sine * part));
  return {
    weights, axis, angle, kappa, sum,
    deviation: 1 - kappa ** 2,
    gate: sum.map((row) => row.map((entry) => entry.map((part) => part / kappa))),
    point: turned([0, 0, 1], axis, angle),
  };
}

/** w 1 - i (x X + y Y + z Z) */
const matrix = (w, [x, y, z]) => [[[w, -z], [-y, -x]], [[y, -x], [w, z]]];

/** A point of the Bloch sphere, turned about an axis. */
function turned(point, axis, angle) {
  const along = dot(point, axis);
  const across = [0, 1, 2].map((i) => axis[(i + 1) % 3] * point[(i + 2) % 3] - axis[(i + 2) % 3] * point[(i + 1) % 3]);
  return point.map((value, i) => value * Math.cos(angle) + across[i] * Math.sin(angle) + axis[i] * along * (1 - Math.cos(angle)));
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const arc = (end, place) => listOf(73, (i) => place((end * i) / 72));

/** The Bloch sphere as seen from the side; what is behind is dashed. `set(what mix gave, turn of the view)`. */
function sphere() {
  const drawing = svg("svg", { class: "qw-sphere", viewBox: "-130 -130 260 260", role: "img" });
  return {
    root: drawing,
    set({ axis, angle, point }, turn) {
      const [elevation, azimuth] = [Math.PI / 8, turn];
      const [[ce, se], [ca, sa]] = [elevation, azimuth].map((value) => [Math.cos(value), Math.sin(value)]);
      const eye = [ce * ca, ce * sa, se];
      const place = (p) => [100 * (ca * p[1] - sa * p[0]), 100 * (se * (ca * p[0] + sa * p[1]) - ce * p[2])].map((value) => value.toFixed(1));
      const path = (points, front) => points.slice(1).map((to, i) => (dot(to, eye) + dot(points[i], eye) >= 0) === front ? `M${place(points[i])}L${place(to)}` : "").join("");
      const curve = (kind, points) => [true, false].map((front) => svg("path", { class: front ? kind : `${kind} qw-behind`, d: path(points, front) }));
      const line = (kind, from, to) => svg("path", { class: kind, d: `M${place(from)}L${place(to)}` });
      const at = (kind, p, r) => { const [cx, cy] = place(p); return svg("circle", { class: kind, cx, cy, r }); };
      const unit = (k, size = 1) => [0, 1, 2].map((i) => (i === k ? size : 0));
      const great = (k) => curve("qw-faint", arc(2 * Math.PI, (t) => { const p = [Math.cos(t), Math.sin(t)]; p.splice(k, 0, 0); return p; }));
      const letter = (name, p) => { const [x, y] = place(p); return svg("text", { x, y, dy: "0.35em" }, name); };
      const back = axis.map((part) => -part);
      drawing.setAttribute("aria-label", `Bloch sphere. The axis points to ${vector(axis)}. State 0, at the top, goes to ${vector(point)}.`);
      drawing.replaceChildren(
        svg("circle", { class: "qw-ball", r: 100 }),
        ...[0, 1, 2].flatMap(great),
        ...[0, 1, 2].map((k) => line("qw-faint", [0, 0, 0], unit(k))),
        ...["X", "Y", "Z"].map((name, k) => letter(name, unit(k, 1.25))),
        ...curve("qw-orbit", arc(2 * Math.PI, (t) => turned([0, 0, 1], axis, t))),
        line("qw-axis qw-behind", [0, 0, 0], back),
        line("qw-axis", [0, 0, 0], axis),
        at("qw-tip", axis, 5),
        ...curve("qw-way", arc(angle, (t) => turned([0, 0, 1], axis, t))),
        at("qw-from", [0, 0, 1], 5),
        at("qw-to", point, 6),
      );
    },
  };
}

// ---- Text ------------------------------------------------------------------------------------------

const vector = (parts) => `(${parts.map((part) => format(part)).join(", ")})`;
const complex = ([real, imaginary]) => `${format(real)} ${format(imaginary).startsWith("\u2212") ? "\u2212" : "+"} ${Math.abs(imaginary).toFixed(2)}i`;

/** A matrix in brackets. */
function matrixView(name) {
  const entries = listOf(4, () => h("span"));
  const root = h("div", { class: "qw-matrix", role: "img" }, ...entries);
  return {
    root,
    set(rows) {
      const texts = rows.flat().map(complex);
      entries.forEach((entry, i) => { entry.textContent = texts[i]; });
      root.setAttribute("aria-label", `${name}: first row ${texts[0]}, ${texts[1]}; second row ${texts[2]}, ${texts[3]}`);
    },
  };
}

function render({ model, el }) {
  const get = (name) => model.get(name);

  // ---- The parts --------------------------------------------------------------------------------------

  const logits = GATES.map((name, k) => {
    const part = slider({
      name: `Logit of ${name}`, caption: name, min: -4, max: 4, step: 0.05, text: (value) => format(value),
      input: (value) => send(model, { alpha: get("alpha").map((old, j) => (j === k ? value : old)) }),
    });
    const bar = h("span", { class: "qw-fill" });
    const text = h("span");
    return {
      root: h("div", { class: "qw-logit" }, part.root, h("div", { class: "qw-weight" }, bar, h("span", { class: "qw-hidden" }, `weight of ${name}:`), text)),
      show(logit, weight) {
        part.set(logit);
        bar.style.setProperty("--share", weight);
        text.textContent = weight.toFixed(3);
      },
    };
  });
  const temperature = slider({
    name: "Temperature", min: -1.5, max: 1, step: 0.01, text: (value) => format(10 ** value),
    input: (value) => send(model, { temperature: 10 ** value }),
  });
  const theta = slider({
    name: "Angle θ", min: -1, max: 1, step: 0.01, text: inPi,
    input: (value) => send(model, { theta: value * Math.PI }),
  });
  const decide = Object.fromEntries(GATES.map((name, k) => [`Only ${name}`, () => send(model, { alpha: GATES.map((_, j) => (j === k ? 4 : -4)), temperature: 0.1 })]));
  const actions = buttons({ ...decide, "A third each": () => send(model, { alpha: [0, 0, 0] }), Reset: () => send(model, structuredClone(get("_given"))) });

  const ball = sphere();
  let turn = -25;
  const view = slider({ name: "Turn the view", min: -180, max: 180, step: 1, text: (value) => `${format(value, 0)}°`, input: (value) => { turn = value; showSphere(); } });
  const where = h("div", { class: "qw-small" });
  const [sum, gate] = ["The weighted sum", "The gate"].map(matrixView);
  const miss = h("div");
  const divide = h("div");
  const mixture = h("span", { class: "qw-hint" });
  const result = h("span");
  const voice = announcer();
  let now;

  // ---- Showing ------------------------------------------------------------------------------------------

  function showSphere() {
    view.set(turn);
    ball.set(now, (turn * Math.PI) / 180);
  }

  function showAll() {
    now = mix(Object.fromEntries(TRAITS.map((name) => [name, get(name)])));
    const { weights, axis, angle, kappa, deviation } = now;
    logits.forEach((logit, k) => logit.show(get("alpha")[k], weights[k]));
    temperature.set(Math.log10(get("temperature")));
    theta.set(turns(get("theta")));
    showSphere();
    where.textContent = `State |0⟩ (dot) goes to ${vector(now.point)} (ring), around the axis.`;
    sum.set(now.sum);
    gate.set(now.gate);
    miss.replaceChildren("G", h("sup", {}, "†"), `G = ${(kappa ** 2).toFixed(3)} times 1, where a unitary G has 1: off by ${Math.abs(deviation).toFixed(3)}.`);
    divide.textContent = `G divided by κ = ${kappa.toFixed(3)} is unitary:`;

    const only = weights.findIndex((weight) => weight > 1 - 1e-9);
    mixture.textContent = weights.map((weight, k) => `${weight.toFixed(2)} ${GATES[k]}`).join(" + ");
    result.textContent = only < 0
      ? `= ${kappa.toFixed(2)} × a turn by ${inPi(angle / Math.PI)} about the axis ${vector(axis)}`
      : `= ${GATES[only]}(${inPi(get("theta") / Math.PI)}), one gate alone`;
    voice.say(`${mixture.textContent} ${result.textContent}`);
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  const root = frame("relaxed-gate",
    lead([], mixture, result),
    h("div", { class: "qw-steps" },
      step(1, "Logits, and the weights that they give", ...logits.map((part) => part.root), temperature.root, theta.root, actions),
      step(2, "Axis", ball.root, where, view.root),
      step(3, "Matrix", h("div", { class: "qw-matrices" },
        h("div", {}, h("div", {}, "The weighted sum G:"), sum.root, miss), h("div", {}, divide, gate.root)))),
    voice.root);
  const end = follow(model, TRAITS, showAll);
  showAll();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);
  return () => { end(); voice.stop(); root.remove(); };
}

export default { render };
