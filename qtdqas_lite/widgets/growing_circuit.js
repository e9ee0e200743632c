// The growing circuit: slopes -> one more gate -> ten steps of training, all computed here.
// The arithmetic is that of qtdqas_lite.grow; tests/browser compares the two.

const AXES = ["rx", "ry", "rz"];
const STEPS_EACH = 10;
const LEARNING_RATE = 0.015;
const ROUNDING = 1e-10; // a derivative below this is 0
const MEMORY = 0.9; // how much of the averaged slopes stays from one step to the next
const LISTED = 8; // how many of the steepest slots have a bar

// ---- The circuit: probabilities forward, the slopes of all slots backward --------------------------

/** Runs the circuit from T H|0>. `angles` has a number for every slot; those that are not open are no gates. */
function runCircuit({ n_qubits: n, n_layers }, angles, isOpen) {
  const size = 2 ** n;
  const effect = entanglerEffect(n, entanglerGates(n, "ring"));
  const phase = Array.from({ length: size }, (_, i) => (signedBits(i, n).filter((bit) => bit > 0).length * Math.PI) / 4);
  let re = Float64Array.from(phase, (angle) => Math.cos(angle) / Math.sqrt(size));
  let im = Float64Array.from(phase, (angle) => Math.sin(angle) / Math.sqrt(size));
  for (let layer = 0; layer < n_layers; layer++) {
    [re, im] = [re, im].map((part) => Float64Array.from(effect.source, (from, i) => effect.sign[i] * part[from]));
    AXES.forEach((axis, a) => {
      for (let wire = 0; wire < n; wire++) {
        const slot = (layer * AXES.length + a) * n + wire;
        if (isOpen[slot]) rotate(re, im, 1 << (n - 1 - wire), axis, angles[slot]);
      }
    });
  }
  return { re, im, effect };
}

/**
 * The derivatives of a loss with respect to the angles of all slots, open or closed, from its derivatives
 * with respect to the probabilities: the state and its adjoint run back together, and the slope of
 * exp(-i angle P / 2) is the imaginary part of <adjoint| P |state> behind it.
 */
function slotSlopes({ n_qubits: n, n_layers }, angles, isOpen, { effect, ...state }, byProbability) {
  let [re, im] = [state.re.slice(), state.im.slice()];
  let [ar, ai] = [re, im].map((part) => part.map((value, k) => byProbability[k] * value));
  const slopes = new Float64Array(angles.length);
  const undoEntangler = (part) => {
    const before = new Float64Array(part.length);
    effect.source.forEach((from, i) => { before[from] = effect.sign[i] * part[i]; });
    return before;
  };
  for (let layer = n_layers - 1; layer >= 0; layer--) {
    for (let a = AXES.length - 1; a >= 0; a--) {
      for (let wire = 0; wire < n; wire++) {
        const slot = (layer * AXES.length + a) * n + wire;
        const bit = 1 << (n - 1 - wire);
        slopes[slot] = overlap(ar, ai, re, im, bit, AXES[a]);
        if (!isOpen[slot]) continue;
        rotate(re, im, bit, AXES[a], -angles[slot]);
        rotate(ar, ai, bit, AXES[a], -angles[slot]);
      }
    }
    [re, im, ar, ai] = [re, im, ar, ai].map(undoEntangler);
  }
  return slopes;
}

/** The imaginary part of <a| P |b> for the Pauli matrix of a rotation, on the wire whose bit is `bit`. */
function overlap(ar, ai, br, bi, bit, rotation) {
  let sum = 0;
  for (let i = 0; i < ar.length; i++) {
    const sign = i & bit ? 1 : -1;
    const j = rotation === "rz" ? i : i ^ bit;
    if (rotation === "ry") sum += sign * (ar[i] * br[j] + ai[i] * bi[j]);
    else sum += (rotation === "rz" ? -sign : 1) * (ar[i] * bi[j] - ai[i] * br[j]);
  }
  return sum;
}

// ---- The network: weights, loss, gradient, Adam -----------------------------------------------------

/** Everything that an update needs, at the trained numbers [angles of all slots, bit coefficients, a, d]. */
function evaluate(config, trained, isOpen) {
  const { n_qubits: n, images, labels, class_names, start } = config;
  const size = 2 ** n;
  const [classes, pixels] = [class_names.length, images[0].length];
  const angles = trained.subarray(0, isOpen.length);
  const bits = trained.subarray(isOpen.length, isOpen.length + n);
  const [a, d] = trained.subarray(isOpen.length + n);
  const state = runCircuit(config, angles, isOpen);
  const scaled = state.re.map((value, i) => size * (value * value + state.im[i] * state.im[i]));
  const feature = scaled.map((value) => Math.log(value + FLOOR));
  const signs = Array.from({ length: size }, (_, i) => signedBits(i, n));
  const stretch = start.scale / start.raw_deviation;
  const weights = Array.from({ length: classes * pixels }, (_, i) =>
    start.centre + stretch * (signs[i].reduce((sum, sign, q) => sum + sign * bits[q], a * feature[i] + d) - start.raw_mean));

  let [loss, correct] = [0, 0];
  const byRaw = new Float64Array(size);
  images.forEach((image, k) => {
    const logits = class_names.map((_, c) => image.reduce((sum, value, j) => sum + value * weights[c * pixels + j], 0));
    const top = Math.max(...logits);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
    loss += (top + Math.log(total) - logits[labels[k]]) / images.length;
    if (logits.indexOf(top) === labels[k]) correct += 1;
    logits.forEach((logit, c) => {
      const byLogit = (Math.exp(logit - top) / total - (c === labels[k] ? 1 : 0)) / images.length;
      image.forEach((value, j) => { byRaw[c * pixels + j] += stretch * byLogit * value; });
    });
  });
  return {
    loss, correct, weights,
    /** The gradient: the slopes of all slots, and then the derivatives with respect to the mapping's numbers. */
    gradient() {
      const byProbability = byRaw.map((value, i) => (value * a * size) / (scaled[i] + FLOOR));
      const slopes = slotSlopes(config, angles, isOpen, state, byProbability);
      const byBits = Array.from(bits, (_, q) => byRaw.reduce((sum, value, i) => sum + value * signs[i][q], 0));
      const sum = (values) => values.reduce((all, value) => all + value, 0);
      return Float64Array.from([...slopes, ...byBits, sum(byRaw.map((value, i) => value * feature[i])), sum(byRaw)]);
    },
  };
}

/** One stage of a growth: `before` with one more slot open, and ten steps trained. Without `before`, the start. */
function grown(config, before, slot) {
  const { n_qubits: n, n_layers, start } = config;
  const n_slots = n_layers * AXES.length * n;
  const zeros = () => new Float64Array(n_slots + n + 2);
  const from = before ?? {
    trained: Float64Array.from([...new Float64Array(n_slots), ...start.bit_coefficients, start.feature_coefficient, start.bias]),
    first: zeros(), second: zeros(), average: new Float64Array(n_slots), isOpen: new Uint8Array(n_slots), steps: 0,
  };
  const [trained, first, second, average, isOpen] = ["trained", "first", "second", "average", "isOpen"].map((name) => from[name].slice());
  if (before) isOpen[slot] = 1;
  let { steps } = from;
  for (let k = 0; k < STEPS_EACH; k++) {
    steps += 1;
    const gradient = evaluate(config, trained, isOpen).gradient();
    for (let i = 0; i < n_slots; i++) {
      average[i] = MEMORY * average[i] + (1 - MEMORY) * gradient[i];
      if (!isOpen[i]) gradient[i] = 0;
    }
    const cut = Math.min(1, 1 / (Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0)) + 1e-6)); // to norm 1
    gradient.forEach((value, i) => {
      const g = Math.abs(cut * value) < ROUNDING ? 0 : cut * value;
      first[i] = 0.9 * first[i] + 0.1 * g;
      second[i] = 0.999 * second[i] + 0.001 * g * g;
      const spread = Math.sqrt(second[i] / (1 - 0.999 ** steps)) + 1e-8;
      trained[i] -= (LEARNING_RATE * first[i]) / (1 - 0.9 ** steps) / spread;
    });
  }
  const { loss, correct, weights } = evaluate(config, trained, isOpen);
  const slopes = average.map((value) => value / (1 - MEMORY ** steps)); // it started at 0
  return { trained, first, second, average, isOpen, steps, slot, loss, correct, weights, slopes };
}

/** The stages of a growth in which these slots are opened; those that `line` has already are taken from it. */
function lineOf(config, slots, line = []) {
  const stages = [line[0] ?? grown(config)];
  slots.forEach((slot, k) => {
    const known = line[k + 1];
    const same = known?.slot === slot && line[k] === stages[k];
    stages.push(same ? known : grown(config, stages[k], slot));
  });
  return stages;
}

/** From the traits of a CircuitGrower to those that follow from them. Pure; plain arrays in and out. */
export function growth(config) {
  const { n_qubits: n, choices, rival, images } = config;
  const told = (prefix, slots) => {
    const line = lineOf(config, slots);
    const last = line.at(-1);
    const found = {
      [`${prefix}losses`]: line.map((stage) => stage.loss),
      [`${prefix}accuracies`]: line.map((stage) => stage.correct / images.length),
      [`${prefix}weights`]: last.weights,
    };
    return { found, last };
  };
  const nested = (values) => listOf(config.n_layers, (layer) => listOf(AXES.length, (a) => Array.from(values.slice((layer * AXES.length + a) * n, (layer * AXES.length + a + 1) * n))));
  const own = told("", choices);
  const { slopes, trained, isOpen } = own.last;
  return { ...own.found, ...told("rival_", rival.slice(0, choices.length)).found, slopes: nested(slopes), theta: nested(trained.slice(0, isOpen.length)) };
}

// ---- The parts --------------------------------------------------------------------------------------

/** The scaffold: a row for each wire, a column for each layer, and a radio button in each place if there is `choose(layer, wire)`. */
function scaffold({ n_qubits: n, n_layers, label, choose }) {
  const group = groupName();
  const places = listOf(n, (wire) => listOf(n_layers, (layer) => {
    const radio = choose && h("input", { type: "radio", name: group, onchange: () => choose(layer, wire) });
    const mark = h("span", { class: "qw-mark" });
    return { radio, mark, root: h(choose ? "label" : "span", { class: "qw-place" }, ...(choose ? [radio] : []), mark) };
  }));
  const row = (wire) => [h("span", { class: "qw-label" }, `q${wire}`), ...places[wire].map((place) => place.root)];
  const head = ["", ...listOf(n_layers, (layer) => layer + 1)].map((text) => h("span", { class: "qw-small", "aria-hidden": "true" }, text));
  const root = h("div", { class: choose ? "qw-scaffold" : "qw-scaffold qw-tiny", role: choose ? "radiogroup" : "img", "aria-label": label, style: `--layers: ${n_layers}` },
    ...(choose ? head : []), ...listOf(n, row).flat());
  return {
    root,
    /** `look(layer, wire)` gives the letters of what is open there, how steep the slope is (0 to 1), a name, and if it is chosen. */
    set(look) {
      places.forEach((ofWire, wire) => ofWire.forEach(({ radio, mark, root: place }, layer) => {
        const { letters, share = 0, name, chosen } = look(layer, wire);
        mark.textContent = letters;
        place.classList.toggle("qw-opened", letters !== "");
        mark.style.setProperty("--share", share.toFixed(3));
        if (!radio) return;
        radio.setAttribute("aria-label", name);
        radio.checked = chosen;
      }));
    },
  };
}

/** Two lines over the number of open gates: the reader's, and a dashed one of chance. */
function race({ title, most, top }) {
  const [width, height, left, bottom] = [220, 100, 34, 20];
  const x = (k) => left + 6 + (k * (width - left - 12)) / most;
  let y;
  const lines = ["qw-mine", "qw-chance"].map((kind) => svg("g", { class: kind }));
  const ticks = svg("g", { class: "qw-axis" });
  const picture = svg("svg", { class: "qw-race", viewBox: `0 0 ${width} ${height + bottom}`, role: "img" }, ticks, ...lines);
  let end = 0;
  return {
    root: h("div", {}, h("div", { class: "qw-small" }, title), picture),
    set(both, text) {
      end = top ?? scaleEnd(Math.max(...both.flat()), end);
      y = (value) => 6 + (1 - value / end) * (height - 12);
      const level = (value) => [svg("line", { x1: left, x2: width, y1: y(value), y2: y(value) }), svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, value)];
      const count = (k) => svg("text", { x: x(k), y: height + 14, "text-anchor": "middle" }, k);
      ticks.replaceChildren(...[0, end / 2, end].flatMap(level), ...listOf(most / 2 + 1, (k) => count(2 * k)));
      lines.forEach((line, i) => {
        const points = both[i].map((value, k) => [x(k), y(value)]);
        const dot = ([px, py]) => (i ? svg("rect", { x: px - 3, y: py - 3, width: 6, height: 6 }) : svg("circle", { cx: px, cy: py, r: 3.2 }));
        line.replaceChildren(svg("polyline", { points: points.join(" ") }), ...points.map(dot));
      });
      picture.setAttribute("aria-label", text);
    },
  };
}

function render({ model, el }) {
  const config = Object.fromEntries(["n_qubits", "n_layers", "images", "labels", "class_names", "start"].map((name) => [name, model.get(name)]));
  const { n_qubits: n, n_layers, images, labels, class_names: names } = config;
  const n_slots = n_layers * AXES.length * n;
  const most = model.get("rival").length;
  const side = Math.sqrt(images[0].length);
  let [mine, chance] = [[], []]; // the stages of both growths
  let ranked = []; // the closed slots, the steepest first
  let chosen = 0;
  let weightEnd = 0;

  const place = (slot) => ({ layer: Math.floor(slot / (AXES.length * n)), axis: Math.floor(slot / n) % AXES.length, wire: slot % n });
  const slotAt = (layer, axis, wire) => (layer * AXES.length + axis) * n + wire;
  const axisName = (axis) => AXES[axis].toUpperCase();
  const nameOf = (slot) => {
    const { layer, axis, wire } = place(slot);
    return `${axisName(axis)} on q${wire} in layer ${layer + 1}`;
  };
  const at = (line) => line.at(-1);
  const slope = (slot) => signed(at(mine).slopes[slot], 3);
  const isOpen = (slot) => at(mine).isOpen[slot] === 1;
  const turned = (line, slot) => inPi(turns(at(line).trained[slot]));
  const full = () => model.get("choices").length === most;

  // ---- What a control does ----------------------------------------------------------------------

  let deed = ""; // what the hand does just now
  const act = (text, values) => {
    deed = text;
    send(model, values);
    deed = "";
  };
  const refuse = (text) => {
    hint.textContent = text;
    voice.say(text);
  };
  const open = (slot, who) => {
    if (full()) refuse(`All ${most} gates are open. Undo, or reset.`);
    else if (isOpen(slot)) refuse(`${nameOf(slot)} is open. Choose a closed slot.`);
    else act(`${who} opened ${nameOf(slot)}.`, { choices: [...model.get("choices"), slot] });
  };
  const closed = () => [...at(mine).isOpen.keys()].filter((slot) => !isOpen(slot));
  const draw = (slots) => slots[Math.floor(Math.random() * slots.length)];
  const undo = () => {
    const choices = model.get("choices");
    if (choices.length) act(`Undone: ${nameOf(choices.at(-1))} is closed.`, { choices: choices.slice(0, -1) });
    else refuse("There is nothing to undo.");
  };
  const another = () => {
    const left = listOf(n_slots, (slot) => slot);
    act("The rival starts again, with other slots.", { rival: listOf(most, () => left.splice(Math.floor(Math.random() * left.length), 1)[0]) });
  };
  const choose = (slot) => {
    chosen = slot;
    showChosen();
    voice.say(told.textContent);
  };

  // ---- The parts --------------------------------------------------------------------------------------

  const hint = h("span", { class: "qw-hint" });
  const told = h("span");
  const voice = announcer();
  const group = groupName();
  const rows = listOf(LISTED, (i) => {
    const radio = h("input", { type: "radio", name: group, onchange: () => choose(ranked[i]) });
    const [name, bar, value] = ["qw-which", "qw-steep", "qw-value"].map((kind) => h("span", { class: kind }));
    return { radio, name, bar, value, root: h("label", { class: "qw-slope" }, radio, name, h("span", { class: "qw-track" }, bar), value) };
  });
  const actions = buttons({
    "Open the chosen": () => open(chosen, "You"),
    "Open the steepest": () => (full() ? open(chosen) : open(ranked[0], "The rule")),
    "Open by chance": () => (full() ? open(chosen) : open(draw(closed()), "Chance")),
    Undo: undo,
    "Another rival": another,
    Reset: () => act("Back to the start.", structuredClone(model.get("_given"))),
  });
  const axes = choice({
    name: "Gate", options: AXES.map((_, axis) => [axis, axisName(axis)]),
    choose: (axis) => { const { layer, wire } = place(chosen); choose(slotAt(layer, axis, wire)); },
  });
  const grid = scaffold({
    ...config, label: "Slots, by wire and layer",
    choose: (layer, wire) => choose(slotAt(layer, place(chosen).axis, wire)),
  });
  const rivals = scaffold({ ...config, label: "" });
  const races = [
    race({ title: "Loss, by open gates", most }),
    race({ title: `Right of ${images.length}, by open gates`, most, top: images.length }),
  ];
  const who = [h("span", { class: "qw-mine" }, "● yours"), h("span", { class: "qw-chance" }, "□ chance")];
  const rowsOf = h("tbody");
  const table = h("table", { class: "qw-table" },
    h("thead", {}, h("tr", {}, ...["Opened", "Slope", "Angle now", "Loss", "Right", "Chance opened", "Loss", "Right"].map((text) => h("th", { scope: "col" }, text)))), rowsOf);
  const maps = ["Your weights", "The rival's weights"].map((whose) => names.map((name) => cells({ side, label: `${whose} for the ${name}` })));
  const samples = names.map((name, c) => {
    const part = cells({ side, ink: true, label: `An image of a ${name}` });
    part.set(images[labels.indexOf(c)]);
    return part;
  });
  const key = h("div", { class: "qw-key" });

  // ---- Showing ------------------------------------------------------------------------------------------

  function showChosen() {
    const now = at(mine);
    const rank = ranked.indexOf(chosen) + 1;
    const { axis } = place(chosen);
    told.textContent = rank
      ? `Chosen: ${nameOf(chosen)}, slope ${slope(chosen)}, ${rank === 1 ? "the steepest" : `number ${rank} of ${ranked.length}`}.`
      : `Chosen: ${nameOf(chosen)}, which is open, at ${turned(mine, chosen)}.`;
    rows.forEach(({ radio }, i) => { radio.checked = ranked[i] === chosen; });
    axes.set(axis);
    const largest = Math.abs(now.slopes[ranked[0]]);
    grid.set((layer, wire) => {
      const slot = slotAt(layer, axis, wire);
      const state = isOpen(slot) ? `open at ${turned(mine, slot)}` : `slope ${slope(slot)}`;
      return { letters: lettersAt(mine, layer, wire), share: isOpen(slot) ? 0 : Math.min(1, Math.abs(now.slopes[slot]) / largest), name: `${nameOf(slot)}, ${state}`, chosen: slot === chosen };
    });
    actions.children[0].setAttribute("aria-disabled", full() || rank === 0);
  }

  const lettersAt = (line, layer, wire) => AXES.map((axis, a) => (at(line).isOpen[slotAt(layer, a, wire)] ? axis[1].toUpperCase() : "")).join("");

  function showAll() {
    const [choices, slots] = [model.get("choices"), model.get("rival").slice(0, model.get("choices").length)];
    mine = lineOf(config, choices, mine);
    chance = lineOf(config, slots, chance);
    const sizes = at(mine).slopes.map(Math.abs);
    ranked = closed().sort((a, b) => sizes[b] - sizes[a]);
    chosen = ranked[0];
    rows.forEach(({ name, bar, value }, i) => {
      const { layer, axis, wire } = place(ranked[i]);
      name.replaceChildren(h("b", {}, axisName(axis)), ` q${wire}, layer ${layer + 1}`);
      bar.style.width = `${(100 * sizes[ranked[i]]) / sizes[ranked[0]]}%`;
      value.textContent = slope(ranked[i]);
    });
    const count = choices.length;
    hint.textContent = `${count} gate${count === 1 ? "" : "s"} open: ${at(mine).correct} of ${images.length} right, loss ${format(at(mine).loss)}. Chance: ${at(chance).correct}, loss ${format(at(chance).loss)}.`;
    for (const button of [actions.children[1], actions.children[2]]) button.setAttribute("aria-disabled", full());
    actions.children[3].setAttribute("aria-disabled", count === 0);
    showChosen();

    const opened = slots.map((slot) => nameOf(slot)).join(", ");
    rivals.root.setAttribute("aria-label", count ? `Chance opened ${opened}` : "Chance has opened nothing");
    rivals.set((layer, wire) => ({ letters: lettersAt(chance, layer, wire) }));
    [(stage) => stage.loss, (stage) => stage.correct].forEach((read, i) => {
      const both = [mine, chance].map((line) => line.map(read));
      const [yours, theirs] = both.map((values) => `from ${format(values[0], i ? 0 : 2)} to ${format(values.at(-1), i ? 0 : 2)}`);
      races[i].set(both, `${i ? "Images read rightly" : "Loss"} with 0 to ${count} gates open: yours ${yours}, chance ${theirs}. The table below has the numbers.`);
    });
    rowsOf.replaceChildren(...mine.map((stage, k) => {
      const slotTexts = k ? [nameOf(stage.slot), signed(mine[k - 1].slopes[stage.slot], 3), turned(mine, stage.slot)] : ["nothing", "", ""];
      const texts = [...slotTexts, format(stage.loss), stage.correct, k ? nameOf(chance[k].slot) : "nothing", format(chance[k].loss), chance[k].correct];
      return h("tr", {}, ...texts.map((text) => h("td", {}, text)));
    }));
    weightEnd = scaleEnd(Math.max(...at(mine).weights.map(Math.abs), ...at(chance).weights.map(Math.abs)), weightEnd);
    [mine, chance].forEach((line, i) => maps[i].forEach((map, c) => map.set(at(line).weights.slice(c * side * side, (c + 1) * side * side), weightEnd)));
    key.replaceChildren(...ramp(weightEnd, ""));
    const next = full() ? `All ${most} gates are open.` : "";
    voice.say([deed, hint.textContent, next, told.textContent].filter(Boolean).join(" "));
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  const heads = names.map((name, c) => h("div", { class: "qw-sample" }, samples[c].root, name));
  const ofRow = (text, row) => [h("span", { class: "qw-small" }, text), ...row.map((map) => map.root)];
  const root = frame("growing-circuit",
    lead([], hint, told),
    h("div", { class: "qw-steps" },
      step(1, "Slopes: choose a closed slot",
        h("div", { class: "qw-slopes", role: "radiogroup", "aria-label": `The ${LISTED} steepest closed slots` }, ...rows.map((row) => row.root)),
        h("div", { class: "qw-small" }, "How steeply the loss would fall or rise if the closed angle grew, averaged over the last steps. After each opening, your circuit and the rival's train ten steps."),
        actions),
      step(2, "The circuit, or choose here",
        axes.root, grid.root,
        h("div", { class: "qw-small" }, "Before each layer, at the double line, a ring of CNOTs. A dot is a closed slot, the larger the steeper; a letter is an open gate.")),
      step(3, "What is gained", h("div", { class: "qw-legend qw-small" }, ...who), h("div", { class: "qw-races" }, ...races.map((part) => part.root)),
        h("div", { class: "qw-small" }, "What chance opened:"), rivals.root,
        h("details", { class: "qw-fold" }, h("summary", {}, "The numbers"), h("div", { class: "qw-scroll", tabindex: 0, role: "group", "aria-label": "Table of the numbers" }, table))),
      step(4, "The weights that it writes",
        h("div", { class: "qw-maps", style: `--classes: ${names.length}` }, h("span"), ...heads, ...ofRow("yours", maps[0]), ...ofRow("chance", maps[1])), key)),
    voice.root);
  const end = follow(model, ["choices", "rival"], showAll);
  showAll();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);
  return () => { end(); voice.stop(); root.remove(); };
}

export default { render };
