// The candidate explorer: gates -> probabilities at random angles -> live or dead, all computed here.
// The arithmetic is that of qtdqas_lite.diagnose; tests/browser compares the two.

const TURN = 2 * Math.PI;
const GOLDEN = (Math.sqrt(5) - 1) / 2;
const ROTATIONS = ["rx", "ry", "rz"];

/** From the traits of a CandidateExplorer to everything that it shows. Pure; plain arrays in and out. */
export function explore(config) {
  const { n_qubits, n_layers, hadamard, entangler, rotation } = config;
  const draws = config.theta.map((layers) => layers.slice(0, n_layers).map((angles) => angles.slice(0, n_qubits)));
  const { live, rank } = judge(config);
  return {
    probabilities: draws.map((theta) => Array.from(probabilities({ ...config, theta }))),
    live,
    rank,
    reason: live ? "" : whyDead(hadamard, rotation),
    number: numberOf(hadamard, entangler, rotation),
  };
}

/** As qtdqas_lite.diagnose, at three settings of the angles that look random and are always the same. */
function judge(config) {
  const { n_qubits: n, n_layers } = config;
  const at = (angles) => probabilities({ ...config, theta: listOf(n_layers, (layer) => angles.slice(layer * n, (layer + 1) * n)) }).map((p) => p * 2 ** n);
  const settings = listOf(3, (s) => listOf(n * n_layers, (k) => TURN * (((1 + k + 97 * s) * GOLDEN) % 1) - Math.PI));
  const [first, ...others] = settings.map(at);
  const independent = new Set();
  for (const angles of settings) {
    const slope = (k) => { // the parameter-shift rule: exact, from two circuits
      const [ahead, behind] = [1, -1].map((side) => at(angles.map((angle, j) => angle + (j === k ? side * TURN / 4 : 0))));
      return ahead.map((p, i) => (p - behind[i]) / 2);
    };
    independentRows(angles.map((_, k) => slope(k))).forEach((k) => independent.add(k));
  }
  return { live: others.some((values) => values.some((value, i) => Math.abs(value - first[i]) > 1e-8)), rank: independent.size };
}

/** Which rows are outside of the span of those before them. */
function independentRows(rows) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const length = (row) => Math.sqrt(dot(row, row));
  const basis = [];
  return [...rows.keys()].filter((k) => {
    let rest = rows[k];
    if (length(rest) <= 1e-8) return false;
    for (let pass = 0; pass < 2; pass++) { // once more, for what rounding left
      for (const axis of basis) {
        const part = dot(rest, axis);
        rest = rest.map((value, i) => value - part * axis[i]);
      }
    }
    if (length(rest) <= 1e-6 * length(rows[k])) return false;
    const size = length(rest);
    basis.push(rest.map((value) => value / size));
    return true;
  });
}

/** The words of qtdqas_lite.diagnose. */
function whyDead(hadamard, rotation) {
  if (rotation === "rx") return "RX only multiplies |+> by a phase, so every outcome stays equally likely";
  const stays = hadamard ? "every outcome stays equally likely" : "one outcome stays certain";
  return `RZ changes phases alone, and entanglers only move them: ${stays}`;
}

/** The number among the paper's twelve, from 1, or null. */
function numberOf(hadamard, entangler, rotation) {
  const ring = ["chain", "ring"].indexOf(entangler);
  return ring < 0 ? null : (hadamard ? 1 : 7) + 3 * ring + ROTATIONS.indexOf(rotation);
}

const ofNumber = (number) => ({
  hadamard: number <= 6,
  entangler: (number - 1) % 6 < 3 ? "chain" : "ring",
  rotation: ROTATIONS[(number - 1) % 3],
});

const CHOICES = ["hadamard", "entangler", "rotation", "n_layers", "n_qubits"];
const TRAITS = [...CHOICES, "theta"];

function render({ model, el }) {
  const configuration = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  let now;
  let drawn = 0; // the number of qubits that the charts are for
  let charts = [];
  let index = 0;

  // ---- The parts --------------------------------------------------------------------------------------

  const named = (names) => names.map((name) => [name, name.toUpperCase()]);
  const pick = (name, trait, options) => {
    const part = choice({ name, options, choose: (value) => send(model, { [trait]: value }) });
    return { root: part.root, show: () => part.set(model.get(trait)) };
  };
  const choices = [
    pick("Start", "hadamard", [[false, "none"], [true, "H"]]),
    pick("Entangler", "entangler", Object.keys(ENTANGLERS).map((name) => [name, name])),
    pick("Rotation", "rotation", named(ROTATIONS)),
    pick("Layers", "n_layers", [1, 2, 3, 4].map((n) => [n, n])),
    pick("Qubits", "n_qubits", [3, 4, 5].map((n) => [n, n])),
  ];
  const paper = choice({
    name: "In the paper",
    options: listOf(12, (i) => [i + 1, i + 1]),
    choose: (number) => send(model, ofNumber(number)),
  });
  const drawing = h("div");
  const angles = h("div", { class: "qw-small" });
  const verdict = h("span", { class: "qw-hint" });
  const badge = h("strong", { class: "qw-badge" });
  const why = h("span");
  const which = h("span", { class: "qw-small" });
  const voice = announcer();
  const random = () => send(model, { theta: model.get("theta").map((layers) => layers.map((row) => row.map(() => TURN * (Math.random() - 0.5)))) });
  const reset = () => send(model, structuredClone(model.get("_given")));
  const panels = h("div", { class: "qw-panels" });
  const outcome = h("div");
  const readout = h("div", { class: "qw-readout" });
  const spread = h("div", { class: "qw-spread" });
  let scrub;

  // ---- Showing ------------------------------------------------------------------------------------------

  /** New charts and a new slider, where their number of outcomes has changed. */
  function build(n) {
    const count = 2 ** n;
    index = Math.min(index, count - 1);
    const look = (to) => { index = to; showIndex(); };
    charts = now.probabilities.map((_, i) => bars({ count, used: count, look, label: `Bar chart of 2^${n} p for ${count} outcomes, draw ${i + 1}; the slider below reads it` }));
    panels.replaceChildren(...charts.map((chart, i) => h("div", {}, chart.root, h("div", { class: "qw-small" }, `draw ${i + 1}`))));
    scrub = slider({ name: "Outcome", min: 0, max: count - 1, step: 1, input: look, text: (i) => `${i}, ${scaled(i).join(", ")}` });
    scrub.root.classList.add("qw-scrub");
    outcome.replaceChildren(scrub.root);
  }

  const scaled = (i) => now.probabilities.map((p) => format(p[i] * p.length));

  function showIndex() {
    const n = model.get("n_qubits");
    scrub.set(index);
    for (const chart of charts) chart.mark(index);
    readout.replaceChildren("outcome ", h("span", { class: "qw-code" }, index.toString(2).padStart(n, "0")), ": 2", h("sup", {}, n), `p = ${scaled(index).join(", ")}`);
  }

  function showAll() {
    const config = configuration();
    const { n_qubits: n, n_layers, rotation } = config;
    now = explore(config);
    if (n !== drawn) build(n);
    drawn = n;
    for (const part of choices) part.show();
    paper.set(now.number);
    drawing.replaceChildren(circuit(config).root);
    angles.textContent = `${n * n_layers} random angles, one for each ${rotation.toUpperCase()} of each layer`;

    badge.textContent = now.live ? "Live" : "Dead";
    badge.classList.toggle("qw-dead", !now.live);
    why.textContent = now.live
      ? `its ${n * n_layers} angles move the probabilities in ${now.rank} independent direction${now.rank === 1 ? "" : "s"} (at most ${2 ** n - 1} are possible).`
      : `${now.reason}.`;
    which.textContent = now.number ? `Number ${now.number} of the paper's twelve circuits.` : "Not one of the paper's twelve circuits.";

    const tables = now.probabilities.map((p) => p.map((value) => value * 2 ** n));
    const largest = Math.max(...tables.flat());
    charts.forEach((chart, i) => chart.set(tables[i], { largest }));
    const differences = tables[0].map((_, i) => {
      const column = tables.map((table) => table[i]);
      return Math.max(...column) - Math.min(...column);
    });
    const change = Math.max(...differences);
    spread.textContent = change > 1e-8 ? `The draws differ, by up to ${format(change)}.` : "All four draws are the same.";
    showIndex();
    voice.say(`${badge.textContent}: ${why.textContent} ${which.textContent} ${spread.textContent}`);
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  verdict.append(badge, h("span", { class: "qw-hidden" }, ":"), " ", why);
  const root = frame("candidate-explorer",
    lead([], verdict, which),
    h("div", { class: "qw-steps" },
      step(1, "Circuit: choose its gates", ...choices.map((part) => part.root), paper.root, drawing, angles),
      step(2, h("span", {}, "Outcomes at four random draws of the angles"),
        buttons({ "New random angles": random, Reset: reset }), panels, outcome, readout, spread)),
    voice.root);
  const end = follow(model, TRAITS, showAll);
  showAll();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);
  return () => { end(); voice.stop(); root.remove(); };
}

export default { render };
