// Shows anywidget models in the built page: no kernel, no require.js, no html-manager, no other host.
// The notebook's widget state is in the page as JSON; each widget's own module (`_esm`) does the rest.
(function () {
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  // One import per source, however many widgets share it.
  const modules = new Map();
  function load(source) {
    if (!modules.has(source)) {
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      modules.set(source, import(url).then(async (module) => {
        const widget = module.default;
        return typeof widget === "function" ? await widget() : (widget ?? module);
      }));
    }
    return modules.get(source);
  }

  function decode(buffer) {
    return new DataView(Uint8Array.from(atob(buffer.data), (c) => c.charCodeAt(0)).buffer);
  }

  // The part of the Jupyter widget model that a front end uses. Views of one model share it.
  function makeModel(record) {
    const state = structuredClone(record.state);
    const listeners = new Map();
    for (const buffer of record.buffers ?? []) {
      let holder = state;
      for (const key of buffer.path.slice(0, -1)) holder = holder[key];
      holder[buffer.path.at(-1)] = decode(buffer);
    }
    const model = {
      get: (key) => state[key],
      set(key, value) {
        const changes = typeof key === "object" ? key : { [key]: value };
        const changed = Object.keys(changes).filter((name) => state[name] !== changes[name]);
        for (const name of changed) state[name] = changes[name];
        for (const name of changed) emit(`change:${name}`, model, state[name]);
        if (changed.length) emit("change", model);
      },
      on(events, callback) {
        for (const event of events.split(" ")) {
          if (!listeners.has(event)) listeners.set(event, new Set());
          listeners.get(event).add(callback);
        }
      },
      off(events, callback) {
        for (const event of events ? events.split(" ") : [...listeners.keys()]) {
          if (callback) listeners.get(event)?.delete(callback);
          else listeners.delete(event);
        }
      },
      save_changes() {},
      send() {},
      widget_manager: null,
    };
    function emit(event, ...values) {
      for (const callback of [...(listeners.get(event) ?? [])]) callback(...values);
    }
    return model;
  }

  const styled = new Set();
  function style(css) {
    if (!css || styled.has(css)) return;
    styled.add(css);
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  }

  const models = new Map();
  function modelOf(id, record) {
    if (!models.has(id)) {
      const model = makeModel(record);
      const ready = load(model.get("_esm")).then(async (widget) => {
        await widget.initialize?.({ model });
        return { model, widget };
      });
      models.set(id, ready);
    }
    return models.get(id);
  }

  async function show(view, records) {
    const id = JSON.parse(view.textContent).model_id;
    const record = records[id];
    if (record?.model_module !== "anywidget") return;
    const el = document.createElement("div");
    el.className = "widget-subarea";
    view.before(el);
    try {
      const { model, widget } = await modelOf(id, record);
      style(model.get("_css"));
      await widget.render?.({ model, el, signal: new AbortController().signal });
    } catch (error) {
      // One broken widget must not take the others with it, and must not fail in silence.
      el.textContent = "This widget did not start in your browser. The notebook in Jupyter or Colab has it too.";
      console.error(error);
    }
  }

  function start() {
    const records = {};
    for (const script of document.querySelectorAll(STATE)) Object.assign(records, JSON.parse(script.textContent).state);
    return Promise.all([...document.querySelectorAll(VIEW)].map((view) => show(view, records)));
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
