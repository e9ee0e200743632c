// The parts that the book's widgets share. A widget's module is this file, followed by its own.
// Nothing here knows about Jupyter: a part is an element and functions that change it.

// ---- The circuit's arithmetic, as in qtdqas_lite.FixedCircuit -------------------------------------

/** Probabilities of the 2^n outcomes. Wire 0 is the most significant bit; theta is layers x wires. */
export function probabilities({ n_qubits: n, hadamard, entangler, rotation, theta }) {
  let re = new Float64Array(2 ** n);
  let im = new Float64Array(2 ** n);
  if (hadamard) re.fill(2 ** (-n / 2));
  else re[0] = 1;
  const { source, sign } = entanglerEffect(n, entanglerGates(n, entangler));
  for (const angles of theta) {
    re = Float64Array.from(source, (from, i) => sign[i] * re[from]);
    im = Float64Array.from(source, (from, i) => sign[i] * im[from]);
    angles.forEach((angle, wire) => rotate(re, im, 1 << (n - 1 - wire), rotation, angle));
  }
  return re.map((value, i) => value * value + im[i] * im[i]);
}

const listOf = (length, item) => Array.from({ length }, (_, i) => item(i));
const ENTANGLERS = {
  chain: (n) => listOf(n - 1, (i) => ["cnot", i, i + 1]),
  ring: (n) => listOf(n > 1 ? n : 0, (i) => ["cnot", i, (i + 1) % n]),
  reversed: (n) => listOf(n - 1, (i) => ["cnot", n - 1 - i, n - 2 - i]),
  stride: (n) => listOf(n > 2 ? n : 0, (i) => ["cnot", i, (i + 2) % n]),
  "cz-ring": (n) => listOf(n > 2 ? n : n - 1, (i) => ["cz", i, (i + 1) % n]),
  none: () => [],
};

/** The gates of an entangler as [kind, control, target], in the order in which they act. */
export const entanglerGates = (n, entangler) => ENTANGLERS[entangler](n);

/** Where each amplitude comes from when these gates act, and its sign: found by undoing them, the last one first. */
function entanglerEffect(n, gates) {
  const sign = new Float64Array(2 ** n).fill(1);
  const source = Int32Array.from(sign, (_, start) => {
    let index = start;
    for (const [kind, control, target] of [...gates].reverse()) {
      const on = (index >> (n - 1 - control)) & 1;
      if (kind === "cnot") index ^= on << (n - 1 - target);
      else if (on & (index >> (n - 1 - target))) sign[start] *= -1;
    }
    return index;
  });
  return { source, sign };
}

/** exp(-i angle P / 2) on the wire whose bit is `bit`, in place. */
function rotate(re, im, bit, rotation, angle) {
  const c = Math.cos(angle / 2);
  const s = Math.sin(angle / 2);
  for (let i = 0; i < re.length; i++) {
    if (i & bit) continue;
    const j = i | bit;
    const [ar, ai, br, bi] = [re[i], im[i], re[j], im[j]];
    if (rotation === "ry") {
      re[i] = c * ar - s * br;
      im[i] = c * ai - s * bi;
      re[j] = s * ar + c * br;
      im[j] = s * ai + c * bi;
    } else if (rotation === "rx") {
      re[i] = c * ar + s * bi;
      im[i] = c * ai - s * br;
      re[j] = c * br + s * ai;
      im[j] = c * bi - s * ar;
    } else {
      re[i] = c * ar + s * ai;
      im[i] = c * ai - s * ar;
      re[j] = c * br - s * bi;
      im[j] = c * bi + s * br;
    }
  }
}

/** What the log feature adds to 2^n p. */
const FLOOR = 0.01;

/** The bits of a basis state as -1 and +1, most significant first. */
export function signedBits(index, n) {
  return Array.from({ length: n }, (_, wire) => ((index >> (n - 1 - wire)) & 1 ? 1 : -1));
}

// ---- Text ------------------------------------------------------------------------------------------

/** A number with a true minus sign, and never "-0.00". */
export function format(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `\u2212${text}` : text;
}

export function signed(value, digits = 2) {
  const text = format(value, digits);
  return text.startsWith("\u2212") || Number(text) === 0 ? text : `+${text}`;
}

/** An angle in units of pi, from -1 to 1. */
export function turns(angle) {
  const value = angle / Math.PI;
  return Math.abs(value) <= 1 ? value : value - 2 * Math.round(value / 2);
}

/** A number of units of pi, as text. */
export const inPi = (value) => `${format(value)}\u2009π`;

// ---- The model -------------------------------------------------------------------------------------

/** Sets traits, and tells Python of them if there is one. */
export function send(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Runs `callback` whenever one of these traits changes; returns what ends that. */
export function follow(model, names, callback) {
  for (const name of names) model.on(`change:${name}`, callback);
  return () => { for (const name of names) model.off(`change:${name}`, callback); };
}

// ---- Elements ---------------------------------------------------------------------------------------

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/**
 * A native slider with its name and its value.
 * `name` is what a screen reader says; `caption` is what is seen in its place, if that is shorter.
 * `input(value)` runs while it moves, `done()` when it is let go.
 */
export function slider({ name, caption = name, min, max, step, text, input, done = () => {} }) {
  const range = h("input", { type: "range", min, max, step });
  const output = h("output", { "aria-live": "off" });
  range.addEventListener("input", () => input(Number(range.value)));
  range.addEventListener("change", done);
  const seen = caption === name
    ? h("span", { class: "qw-caption" }, name)
    : h("span", {}, h("span", { class: "qw-hidden" }, name), h("span", { class: "qw-caption", "aria-hidden": "true" }, caption));
  return {
    root: h("div", { class: "qw-slider" }, h("label", {}, seen, range), output),
    set(value) {
      if (Math.abs(range.value - value) > step / 1.99) range.value = value; // a held thumb stays put
      range.style.setProperty("--at", (value - min) / (max - min));
      range.style.setProperty("--zero", Math.min(1, Math.max(0, -min / (max - min))));
      range.setAttribute("aria-valuetext", text(value));
      output.textContent = text(value);
    },
  };
}

/** A widget's outermost element. JupyterLab would swallow the arrow keys: none leaves it. */
export function frame(kind, ...children) {
  return h("div", { class: `qw qw-${kind}`, onkeydown: (event) => event.stopPropagation() }, ...children);
}

/** What stays in sight at the top: a small picture, perhaps, and lines of text. */
export function lead(picture, ...lines) {
  return h("div", { class: "qw-lead" }, ...picture, h("div", { class: "qw-say" }, ...lines));
}

/** A numbered part of a widget. */
export function step(number, title, ...content) {
  return h("div", { class: `qw-step qw-step-${number}` }, h("div", { class: "qw-title" }, h("span", { class: "qw-number" }, number), title), ...content);
}

export function buttons(actions) {
  return h("div", { class: "qw-buttons" }, ...Object.entries(actions).map(([text, onclick]) => h("button", { type: "button", onclick }, text)));
}

/** Radio buttons need a name of their own. */
export const groupName = () => `qw-${Math.random().toString(36).slice(2)}`;

/** One of a few, as radio buttons: `options` are values and their texts; `choose(value)` runs on a choice. */
export function choice({ name, options, choose }) {
  const group = groupName();
  const radios = options.map(([value]) => h("input", { type: "radio", name: group, onchange: () => choose(value) }));
  return {
    root: h("div", { class: "qw-choice", role: "radiogroup", "aria-label": name }, h("span", { class: "qw-caption", "aria-hidden": "true" }, name),
      h("div", { class: "qw-options" }, ...options.map(([, text], i) => h("label", {}, radios[i], h("span", {}, text))))),
    set(value) { radios.forEach((radio, i) => { radio.checked = options[i][0] === value; }); },
  };
}

/** Says its latest text to a screen reader, once the reader's hand has come to rest. */
export function announcer(wait = 700) {
  const output = h("output", { class: "qw-hidden", "aria-live": "polite" });
  let timer;
  return {
    root: output,
    say(text) {
      clearTimeout(timer);
      timer = setTimeout(() => { output.textContent = text; }, wait);
    },
    stop: () => clearTimeout(timer),
  };
}

/**
 * A circuit. With `input(layer, wire, angle)` and `done()` its rotation gates are sliders, and there
 * is one block a layer: side by side where there is room, below one another where there is not.
 * Without, it is a small drawing of one layer, which says how often it comes.
 */
export function circuit({ n_qubits: n, n_layers, hadamard, entangler, rotation, input, done }) {
  const gates = entanglerGates(n, entangler);
  const axis = rotation.toUpperCase();
  const height = input ? 40 : 32;
  const drawn = input ? n_layers : 1;
  const place = (element, row, column) => {
    element.style.gridRow = row + 1;
    element.style.gridColumn = column;
    return element;
  };
  const knobs = [];
  const layers = Array.from({ length: drawn }, (_, layer) => {
    const grid = h("div", { class: "qw-wires" });
    const first = layer === 0;
    const last = layer === drawn - 1;
    knobs.push([]);
    for (let wire = 0; wire < n; wire++) {
      const knob = input
        ? dial({ name: `${axis} angle of q${wire} in layer ${layer + 1}`, caption: axis, input: (angle) => input(layer, wire, angle), done })
        : { root: h("span", { class: "qw-box qw-wide" }, axis) };
      knobs[layer].push(knob);
      const ket = first ? [h("span", { class: "qw-ket" }, "|0⟩")] : [];
      grid.append(
        place(h("span", { class: "qw-wire" }), wire, "1 / -1"),
        place(h("span", { class: first ? "qw-label" : "qw-label qw-again" }, `q${wire}`, ...ket), wire, 1),
        place(knob.root, wire, 4),
      );
      if (first && hadamard) grid.append(place(h("span", { class: "qw-box" }, "H"), wire, 2));
      if (last) grid.append(place(meter(), wire, 5));
    }
    if (gates.length) grid.append(drawEntangler(n, gates, height));
    const title = input ? `Layer ${layer + 1}` : n_layers > 1 ? `Layer, ${n_layers} times` : "Layer, once";
    const entangled = gates.length ? `${gates.length} ${gates[0][0].toUpperCase()}${gates.length === 1 ? "" : "s"}, then ` : "";
    const ends = `${first ? "qw-first" : ""} ${last ? "qw-last" : ""}`;
    return h("div", { class: `qw-layer ${ends}`, role: "group", "aria-label": title, style: `--wires: ${n}; --gates: ${gates.length}; --row: ${height}px` },
      h("div", { class: "qw-small" }, `${title}: ${entangled}${axis}`), grid);
  });
  return {
    root: h("div", { class: input ? "qw-circuit" : "qw-circuit qw-drawing" }, ...layers),
    set: (theta) => theta.forEach((angles, layer) => angles.forEach((angle, wire) => knobs[layer][wire].set(angle))),
  };
}

/** A rotation gate that is a slider, with a needle. */
function dial({ name, caption, input, done }) {
  const knob = slider({ name, caption, min: -1, max: 1, step: 0.01, text: inPi, input: (value) => input(value * Math.PI), done });
  const needle = svg("line", { x1: 0, y1: 0, x2: 0, y2: -7.5 });
  knob.root.prepend(svg("svg", { class: "qw-dial", viewBox: "-9 -9 18 18", "aria-hidden": "true" }, svg("circle", { r: 8 }), needle));
  knob.root.classList.add("qw-gate");
  return {
    root: knob.root,
    set(angle) {
      knob.set(turns(angle));
      needle.setAttribute("transform", `rotate(${180 * turns(angle)})`);
    },
  };
}

function meter() {
  return svg("svg", { class: "qw-box qw-meter", viewBox: "0 0 22 22", role: "img", "aria-label": "measured" },
    svg("path", { d: "M4.5 15 A6.5 6.5 0 0 1 17.5 15 M11 15 L15.5 7" }));
}

/** CNOTs as a dot and a circled cross, CZs as two dots. */
function drawEntangler(n, gates, height) {
  const width = 16;
  const y = (wire) => (wire + 0.5) * height;
  const drawn = gates.flatMap(([kind, control, target], column) => {
    const x = (column + 0.5) * width;
    const reach = kind === "cz" ? 0 : control < target ? 6.5 : -6.5; // up to the far edge of the circle
    const dot = (wire) => svg("circle", { class: "qw-dot", cx: x, cy: y(wire), r: 3.4 });
    const line = svg("line", { x1: x, x2: x, y1: y(control), y2: y(target) + reach });
    if (kind === "cz") return [line, dot(control), dot(target)];
    return [
      svg("circle", { class: "qw-ground", cx: x, cy: y(target), r: 6.5 }),
      line,
      svg("line", { x1: x - 6.5, x2: x + 6.5, y1: y(target), y2: y(target) }),
      dot(control),
    ];
  });
  const size = { width: gates.length * width, height: n * height };
  const label = `${gates[0][0].toUpperCase()}s from control to target: ${gates.map(([, c, t]) => `q${c} to q${t}`).join(", ")}`;
  return svg("svg", { class: "qw-entangler", ...size, viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": label }, ...drawn);
}

/** The end of a scale, a round number: it grows at once and shrinks late, so that it seldom jumps. */
export function scaleEnd(largest, before) {
  const power = 10 ** Math.floor(Math.log10(Math.max(largest, 1e-3)));
  const round = [1, 1.5, 2, 3, 4, 6, 8, 10].find((step) => largest <= step * power * (1 + 1e-9)) ?? 10;
  const end = Number((round * power).toPrecision(2));
  return before && end < before && largest > before / 3 ? before : end;
}

/**
 * Bars, one for each of `count` outcomes; those from `used` on are pale and hatched. A dashed line
 * marks 1. `look(index)` runs when a bar is pointed at. `set(values, { floor, largest })` with a floor
 * above zero has a logarithmic axis: heights are log(value + floor). Charts given the same `largest`
 * have the same axis.
 */
export function bars({ count, used, label, look }) {
  const all = Array.from({ length: count }, (_, i) => h("span", { class: i < used ? "qw-bar" : "qw-bar qw-unused" }));
  const top = h("span", { class: "qw-tick" });
  const middle = h("span", { class: "qw-tick" });
  const one = h("span", { class: "qw-one" }, h("span", {}, "1"));
  const plot = h("div", { class: count > 128 ? "qw-bars" : "qw-bars qw-apart", role: "img", "aria-label": label }, ...all);
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    look(Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * count))));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  let end = 0;
  let marked = all[0];
  return {
    root: h("div", { class: "qw-plot" }, top, middle, one, plot),
    set(values, { floor = 0, largest = Math.max(...values) } = {}) {
      end = scaleEnd(Math.max(2, largest), end);
      const height = floor
        ? (value) => 100 * Math.log((value + floor) / floor) / Math.log((end + floor) / floor)
        : (value) => 100 * value / end;
      all.forEach((bar, i) => { bar.style.height = `${height(values[i])}%`; });
      one.style.bottom = `${height(1)}%`;
      const inner = floor ? 0.1 : end / 2;
      for (const [tick, value] of [[top, end], [middle, inner]]) {
        tick.textContent = value === 1 ? "" : value;
        tick.style.bottom = `${height(value)}%`;
      }
    },
    mark(index) {
      marked.classList.remove("qw-marked");
      marked = all[index];
      marked.classList.add("qw-marked");
    },
  };
}

/** A square of numbers. `ink`: grey values from 0 to 1; else signed numbers, the negative ones with a minus. */
export function cells({ side, label, ink = false, first = 0, look = () => {} }) {
  const all = Array.from({ length: side * side }, (_, i) => h("span", { class: ink ? "qw-cell qw-ink" : "qw-cell", "data-index": first + i }));
  const root = h("div", { class: "qw-cells", role: "img", "aria-label": label, style: `--side: ${side}` }, ...all);
  root.addEventListener("pointerover", (event) => { if (event.target.dataset.index) look(Number(event.target.dataset.index)); });
  let marked;
  return {
    root,
    set(values, end = 1) {
      all.forEach((cell, i) => {
        const share = Math.min(1, Math.abs(values[i]) / end);
        cell.style.setProperty("--share", share.toFixed(3));
        cell.classList.toggle("qw-negative", values[i] < 0);
        cell.classList.toggle("qw-faint", share < 0.05);
      });
    },
    mark(index) {
      marked?.classList.remove("qw-marked");
      marked = all[index - first];
      marked?.classList.add("qw-marked");
    },
  };
}

/** The colours of signed numbers, from -end to end, and a line of text below. */
export function ramp(end, text) {
  return [h("span", {}, `\u2212${end}`), h("span", { class: "qw-ramp" }), h("span", {}, `+${end}`), h("span", { class: "qw-keytext" }, text)];
}

/** A small picture of grey values. */
export function picture(pixels) {
  const side = Math.sqrt(pixels.length);
  const canvas = h("canvas", { width: side, height: side, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  pixels.forEach((value, i) => {
    context.fillStyle = `rgb(0 0 0 / ${value})`;
    context.fillRect(i % side, Math.floor(i / side), 1, 1);
  });
  return canvas;
}
