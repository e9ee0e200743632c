// The weight writer: angles -> probabilities -> weights -> prediction, all computed here.
// The arithmetic is that of qtdqas_lite.GeneratedNetwork; tests/browser compares the two.

/** From the traits of a WeightWriter to everything that it shows. Pure; plain arrays in and out. */
export function write(config) {
  const { n_qubits, bit_coefficients, feature_coefficient, bias, raw_mean, raw_deviation, centre, scale, images } = config;
  const last = images[0].length; // the bias is the last weight
  const p = Array.from(probabilities(config));
  const scaled = p.map((value) => value * 2 ** n_qubits);
  const feature = scaled.map((value) => Math.log(value + FLOOR));
  const bitSums = [];
  const weights = [];
  for (let i = 0; i <= last; i++) {
    const bits = signedBits(i, n_qubits);
    bitSums.push(bits.reduce((sum, bit, wire) => sum + bit * bit_coefficients[wire], 0));
    const raw = bitSums[i] + feature_coefficient * feature[i] + bias;
    const tensor = i < last ? 0 : 1;
    weights.push(centre[tensor] + (scale[tensor] * (raw - raw_mean)) / raw_deviation);
  }
  const logits = images.map((image) => image.reduce((sum, value, i) => sum + value * weights[i], weights[last]));
  const predictions = logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  return { probabilities: p, scaled, feature, bitSums, weights, logits, predictions };
}

const COEFFICIENTS = ["bit_coefficients", "feature_coefficient", "bias"];
const NUMBERS = ["theta", ...COEFFICIENTS, "raw_mean", "raw_deviation", "centre", "scale"];
const ARCHITECTURE = ["hadamard", "entangler", "rotation"];
const FIXED = ["n_qubits", "n_layers", "images", "labels", "class_names"];

function build(model, el) {
  const get = (name) => model.get(name);
  const configuration = () => Object.fromEntries([...NUMBERS, ...ARCHITECTURE, ...FIXED].map((name) => [name, get(name)]));
  const { n_qubits: n, images, labels, class_names: names, theta } = configuration();
  const pixels = images[0].length;
  const side = Math.sqrt(pixels);
  const count = pixels + 1;
  let now = write(configuration());
  let index = now.weights.reduce((best, w, i) => (i < pixels && Math.abs(w) > Math.abs(now.weights[best]) ? i : best), 0);
  let weightEnd = 0;
  let voteEnd = 0;
  let before = null; // the weights when the hand took hold of a control

  // ---- What a control does ----------------------------------------------------------------------

  const change = (what, values) => {
    before ??= now.weights;
    send(model, values);
    const moves = now.weights.map((weight, i) => Math.abs(weight - before[i]));
    const moved = moves.filter((move) => move > 1e-9).length;
    const mean = moves.reduce((sum, move) => sum + move, 0) / count;
    hint.textContent = `${what}: ${moved} of ${count} weights moved${moved ? `, by ${mean.toFixed(3)} on average` : ""}.`;
    announce(); // again, now that it is known how many moved
  };
  const done = () => { before = null; };
  const once = (what, values) => { done(); change(what, values); done(); };
  const random = () => once("New random angles", { theta: get("theta").map((layer) => layer.map(() => Math.PI * (2 * Math.random() - 1))) });
  const reset = () => once("Back to the start", structuredClone(get("_given")));

  // ---- The parts --------------------------------------------------------------------------------------

  const hint = h("span", { class: "qw-hint" }, "Drag one angle. Which weights move?");
  const voice = announcer();

  const wires = circuit({
    ...configuration(),
    input(layer, wire, angle) {
      const next = get("theta").map((angles) => [...angles]);
      next[layer][wire] = angle;
      change(`q${wire} in layer ${layer + 1}`, { theta: next });
    },
    done,
  });

  const look = (to) => { if (to !== index) { index = to; showIndex(); } };
  const outcomes = bars({
    count: 2 ** n, used: count, look,
    label: `Bar chart of 2^${n} p for the ${2 ** n} outcomes; the slider below reads each one`,
  });
  const scrub = slider({
    name: "Outcome", min: 0, max: 2 ** n - 1, step: 1, input: look,
    text: (i) => (i < count ? `${i}, weight ${format(now.weights[i], 3)}` : `${i}, unused`),
  });
  scrub.root.classList.add("qw-scrub");
  const readout = h("div", { class: "qw-readout" });
  const logarithmic = h("input", { type: "checkbox", onchange: () => showBars() });
  const showBars = () => outcomes.set(now.scaled, { floor: logarithmic.checked ? FLOOR : 0 });

  const weightMap = cells({ side, look, label: `The ${pixels} pixel weights as a ${side} by ${side} map` });
  const biasCell = cells({ side: 1, look, first: pixels, label: "The bias" });
  const biasText = h("span");
  const digit = cells({ side, look, ink: true, label: "The chosen image" });
  const votes = cells({ side, look, label: "Weight times grey value, pixel by pixel" });
  const weightKey = h("div", { class: "qw-key" });
  const voteKey = h("div", { class: "qw-key" });
  const truth = h("div", { class: "qw-key" });

  const coefficient = (name, caption, trait, wire) => {
    const start = wire === undefined ? get("_given")[trait] : get("_given")[trait][wire];
    const reach = Math.max(2, Math.ceil(1.5 * Math.abs(start)));
    const part = slider({
      name, caption, min: -reach, max: reach, step: 0.01, text: (value) => format(value), done,
      input(value) {
        const next = wire === undefined ? value : get(trait).map((old, q) => (q === wire ? value : old));
        change(name.split(",")[0], { [trait]: next });
      },
    });
    return { root: part.root, show: () => part.set(wire === undefined ? get(trait) : get(trait)[wire]) };
  };
  const general = [coefficient("Feature coefficient a", "a", "feature_coefficient"), coefficient("Constant d", "d", "bias")];
  const bits = theta[0].map((_, q) => coefficient(`Bit coefficient β${q}, of q${q}`, `β${q}`, "bit_coefficients", q));
  const formula = h("div", { class: "qw-formula" });

  const bar = h("div", { class: "qw-share" });
  const chances = [h("span"), h("span")];
  const sum = h("div", { class: "qw-sum" });
  const verdict = h("div", { class: "qw-verdict" });
  const score = h("div", { class: "qw-score" });
  const brief = h("span");
  const small = cells({ side, label: "The weights, small" });

  const group = groupName();
  const thumbs = images.map((image, i) => {
    const radio = h("input", {
      type: "radio", name: group, value: i, "aria-label": `Image ${i + 1}, a ${names[labels[i]]}`,
      onchange: () => send(model, { selected: i }),
    });
    return { radio, root: h("label", { class: "qw-thumb", title: `a ${names[labels[i]]}` }, radio, picture(image)) };
  });

  // ---- Showing ------------------------------------------------------------------------------------------

  const announce = () => voice.say(`${hint.textContent} ${brief.textContent}`);
  const percent = (share) => `${Math.round(100 * share)}\u2009%`;

  function where(i) {
    return i < pixels ? `pixel row ${Math.floor(i / side)}, column ${i % side}` : "the bias";
  }

  function showIndex() {
    const binary = index.toString(2).padStart(n, "0");
    const used = index < count;
    outcomes.mark(index);
    scrub.set(index);
    for (const map of [weightMap, biasCell, digit, votes]) map.mark(index);
    readout.replaceChildren(
      "outcome ", h("span", { class: "qw-code" }, binary), ` = ${index}: 2`, h("sup", {}, n), `p = ${format(now.scaled[index])} `,
      h("span", { class: "qw-arrow" }, "→"), used ? ` weight ${signed(now.weights[index], 3)} (${where(index)})` : ` unused, there are only ${count} weights`,
    );
    showFormula(used ? index : 0);
  }

  function showFormula(i) {
    const tensor = i < pixels ? 0 : 1;
    const c = now.feature[i]; // the symbols of chapter 03
    const [a, d, mean, deviation] = ["feature_coefficient", "bias", "raw_mean", "raw_deviation"].map(get);
    const z = (now.bitSums[i] + a * c + d - mean) / deviation;
    const [centre, spread] = [get("centre")[tensor], get("scale")[tensor]];
    const term = (value) => (value < 0 ? `(${format(value)})` : format(value));
    const line = (name, rule, numbers, result) =>
      h("div", {}, h("i", {}, name), ` = ${rule} `, h("span", { class: "qw-numbers" }, `= ${numbers} = `, h("strong", {}, result)));
    formula.replaceChildren(
      line("c", `log(2ⁿp + ${FLOOR})`, `log(${format(now.scaled[i])} + ${FLOOR})`, format(c)),
      line("z", "(a·c + d + Σ β·bit − mean) / deviation",
        `(${format(a)}·${term(c)} + ${term(d)} + ${term(now.bitSums[i])} − ${term(mean)}) / ${format(deviation)}`, format(z)),
      line("weight", "centre + scale·z", `${format(centre)} + ${format(spread)}·${term(z)}`, format(now.weights[i], 3)),
    );
    formulaFor.textContent = `For outcome ${i}, ${where(i)}:`;
  }
  const formulaFor = h("span", { class: "qw-small" });

  function showImage() {
    const selected = get("selected");
    const image = images[selected];
    const products = image.map((value, i) => value * now.weights[i]);
    digit.set(image);
    voteEnd = scaleEnd(Math.max(...products.map(Math.abs)), voteEnd);
    votes.set(products, voteEnd);
    voteKey.replaceChildren(...ramp(voteEnd, `− for ${names[0]}, + for ${names[1]}`));
    truth.textContent = `a ${names[labels[selected]]}`;
    const p = now.predictions[selected];
    const answer = p > 0.5 ? 1 : 0;
    const right = answer === labels[selected];
    bar.style.setProperty("--share", p);
    [1 - p, p].forEach((share, label) => { chances[label].textContent = `${names[label]}: ${percent(share)}`; });
    const total = products.reduce((all, product) => all + product, 0);
    sum.textContent = `votes ${signed(total)}, bias ${signed(now.weights[pixels])}: logit ${signed(now.logits[selected])}`;
    verdict.textContent = `It says ${names[answer]}, and it is a ${names[labels[selected]]}: ${right ? "right" : "wrong"}.`;
    verdict.classList.toggle("qw-wrong", !right);
    thumbs[selected].radio.checked = true;
    const correct = now.predictions.map((value, i) => (value > 0.5 ? 1 : 0) === labels[i]);
    thumbs.forEach(({ root }, i) => root.classList.toggle("qw-wrong", !correct[i]));
    score.textContent = `Right on ${correct.filter(Boolean).length} of ${images.length}`;
    brief.textContent = `Says ${names[answer]} (${percent(answer ? p : 1 - p)}): ${right ? "right" : "wrong"}. ${score.textContent}.`;
    announce();
  }

  function showAll() {
    now = write(configuration());
    wires.set(get("theta"));
    for (const part of [...general, ...bits]) part.show();
    showBars();
    weightEnd = scaleEnd(Math.max(...now.weights.map(Math.abs)), weightEnd);
    for (const map of [weightMap, small]) map.set(now.weights, weightEnd);
    biasCell.set([now.weights[pixels]], weightEnd);
    biasText.textContent = `bias ${signed(now.weights[pixels])}`;
    weightKey.replaceChildren(...ramp(weightEnd, ""));
    showImage();
    showIndex();
  }

  // ---- The layout --------------------------------------------------------------------------------------------

  const spans = [["pixel weights", pixels], ["", 1], ["unused", 2 ** n - count]].filter(([, width]) => width > 0);

  const root = frame("weight-writer",
    lead([small.root], hint, brief),
    h("div", { class: "qw-steps" },
      step(1, "Circuit: every rotation is a slider",
        buttons({ "Random angles": random, Reset: reset }), wires.root),
      step(2, h("span", {}, `Probabilities p of ${2 ** n} outcomes, as 2`, h("sup", {}, n), "p"),
        outcomes.root,
        h("div", { class: "qw-spans", "aria-hidden": "true" }, ...spans.map(([text, width]) => h("span", { style: `flex: ${width} 0 0` }, text))),
        scrub.root, readout,
        h("label", { class: "qw-check" }, logarithmic, "logarithmic axis, as the mapping sees it")),
      step(3, "Mapping: from outcome to weight",
        ...general.map((part) => part.root),
        h("details", { class: "qw-fold" }, h("summary", {}, `The ${n} bit coefficients`), ...bits.map((part) => part.root)),
        formulaFor, formula),
      step(4, "Weights × image = votes",
        h("div", { class: "qw-product" },
          h("div", {}, weightMap.root, weightKey, h("div", { class: "qw-bias" }, biasCell.root, biasText)),
          h("span", { class: "qw-times" }, "×"),
          h("div", {}, digit.root, truth),
          h("span", { class: "qw-times" }, "="),
          h("div", {}, votes.root, voteKey))),
      step(5, "Prediction",
        sum,
        h("div", { class: "qw-chances" }, chances[0], bar, chances[1]),
        verdict,
        score,
        h("div", { class: "qw-thumbs", role: "radiogroup", "aria-label": "Image to show; those read wrongly are crossed" }, ...thumbs.map((thumb) => thumb.root)))),
    voice.root,
  );
  const ends = [follow(model, NUMBERS, showAll), follow(model, ["selected"], showImage)];
  showAll();
  voice.stop(); // nothing has happened yet
  el.replaceChildren(root);

  return () => {
    for (const end of ends) end();
    voice.stop();
    root.remove();
  };
}

function render({ model, el }) {
  let stop = build(model, el);
  const end = follow(model, ARCHITECTURE, () => { stop(); stop = build(model, el); });
  return () => { end(); stop(); };
}

export default { render };
