// The page "Ask both models": a prompt, two replies token by token, and what stands behind each token.
(() => {
  const at = (id) => document.getElementById(id);
  let turn = 0; // a new question ends the writing of the last
  let written = null; // the two replies that are shown
  let chosen = null; // the token whose alternatives are shown
  let yours = null; // what stands before and after a prompt in a template of the reader's own

  // The weights are a script, loaded when they are first needed; a script also loads from a file.
  let script;
  function weights() {
    script ??= new Promise((done, failed) => {
      const tag = document.createElement("script");
      tag.src = "weights.js";
      tag.onload = done;
      tag.onerror = () => failed(new Error("weights.js is missing beside this page: build the book anew"));
      document.head.append(tag);
    });
    return script.then(() => Almanac.load());
  }

  const visible = (text) => text.replace(/\n/g, "⏎").replace(/^ +| +$/g, (s) => "·".repeat(s.length)) || "∅";
  const percent = (p) => (p >= 0.001 ? `${(100 * p).toFixed(1)}%` : "under 0.1%");

  function element(name, text, more = {}) {
    const made = Object.assign(document.createElement(name), more);
    if (text) made.textContent = text;
    return made;
  }

  // Σ p log(p / q): how far the right model is from the left one at a place, in nats.
  function distance(p, q) {
    let sum = 0;
    for (let i = 0; i < p.length; i++) if (p[i] > 0) sum += p[i] * Math.log(p[i] / Math.max(q[i], 1e-12));
    return sum;
  }

  function chip(models, token) {
    const box = element("button", visible(models.tokenizer.decode([token.id])), { type: "button", className: "token" });
    box.classList.toggle("special", models.tokenizer.special.has(models.tokenizer.tokens[token.id]));
    token.box = box;
    box.onclick = () => detail(models, token);
    return box;
  }

  function shade(token) {
    const kind = at("shade").value;
    const value = kind === "chance" ? token.chances[token.id] : Math.min(1, (token.apart ?? 0) / 5);
    token.box.style.background = kind === "chance"
      ? `rgba(0, 114, 178, ${0.05 + 0.45 * value})` : `rgba(213, 94, 0, ${0.05 + 0.5 * value})`;
    const told = kind === "chance" ? `probability ${percent(token.chances[token.id])}`
      : token.apart === undefined ? "" : `KL ${token.apart.toFixed(2)} nats`;
    token.box.title = told;
    token.box.setAttribute("aria-label", `${token.box.textContent}, ${told}`);
  }

  // The five likeliest tokens at a place, by both models.
  function detail(models, token) {
    const place = at("detail");
    chosen = token;
    place.replaceChildren(element("h2", `In place of “${visible(models.tokenizer.decode([token.id]))}”`));
    const beside = element("div", "", { className: "beside" });
    for (const [name, chances] of [["the model that wrote it", token.chances], ["the other one, after the same tokens", token.others]]) {
      if (!chances) continue;
      const table = element("table", "", { className: "likeliest" });
      table.append(element("caption", name));
      const best = [...chances.keys()].sort((a, b) => chances[b] - chances[a]).slice(0, 5);
      for (const id of best) {
        const row = table.insertRow();
        row.append(element("th", visible(models.tokenizer.decode([id])), { scope: "row" }), element("td", percent(chances[id])));
        const bar = row.insertCell();
        bar.append(element("div", "", { className: "bar" }));
        bar.firstChild.style.width = `${100 * chances[id]}%`;
      }
      beside.append(table);
    }
    place.append(beside);
    if (token.apart !== undefined)
      place.append(element("p", `KL of the right model from the left one here: ${token.apart.toFixed(2)} nats.`));
  }

  // The words of a prompt that stood in no document of the base.
  function unread(models, prompt) {
    for (const token of models.tokenizer.special.keys()) prompt = prompt.replaceAll(token, " ");
    const known = new Set(ALMANAC.words_read);
    const words = prompt.match(/[\p{L}\p{N}_]+(?:['’][\p{L}\p{N}_]+)*|[^\p{L}\p{N}_\s]/gu) ?? [];
    return [...new Set(words)].filter((word) => !known.has(word));
  }

  function notes(models, prompt) {
    const typed = [...models.tokenizer.special.keys()].filter((token) => prompt.includes(token));
    const told = [];
    if (typed.length)
      told.push(`Your text contains ${typed.join(", ")}. The tokenizer makes one special token of it, as it does for those of the template: the models cannot see who wrote it.`);
    const words = unread(models, prompt);
    if (words.length)
      told.push(`The base never read ${words.slice(0, 8).map((w) => `“${w.slice(0, 30)}”`).join(", ")}${words.length > 8 ? ` and ${words.length - 8} more` : ""} in its documents: what it writes about that is a guess. The chat model can have learned it in fine-tuning only.`);
    at("notes").replaceChildren(...told.map((text) => element("p", text, { className: "stored" })));
  }

  function readings(reading) {
    const [bare, template] = Object.keys(ALMANAC.renderings);
    if (reading === "yours" && yours) [at("before").value, at("after").value] = yours;
    return reading === "own" ? [bare, template] : [reading, reading];
  }

  async function write(models, model, ids, place, mine) {
    const tokens = [];
    place.replaceChildren();
    for await (const token of model.write(ids, ALMANAC.limit, ALMANAC.stops)) {
      if (mine !== turn) return tokens;
      tokens.push(token);
      place.append(chip(models, token));
      shade(token);
      if (models.tokenizer.tokens[token.id].includes("Ċ")) place.append(element("br"));
    }
    if (!tokens.at(-1)?.stopped) place.append(element("span", " … the limit", { className: "limit" }));
    return tokens;
  }

  // What the other model gives at each place of a reply, after the same tokens.
  async function compare(other, ids, tokens, otherIsLeft) {
    const state = other.start();
    let logits;
    ids.forEach((id, i) => (logits = other.step(state, id, i === ids.length - 1)));
    for (const token of tokens) {
      token.others = Almanac.softmax(logits);
      token.apart = otherIsLeft ? distance(token.chances, token.others) : distance(token.others, token.chances);
      shade(token);
      logits = other.step(state, token.id);
    }
  }

  // What is shown belongs to one question; it goes before the next is read.
  function clear() {
    written = chosen = null;
    for (const id of ["left", "right", "read_left", "read_right", "notes", "detail"]) at(id).replaceChildren();
  }

  async function ask() {
    const mine = ++turn, prompt = at("prompt").value;
    clear();
    if (!prompt.trim()) return (at("state").textContent = "The prompt is empty: type something to ask.");
    at("state").textContent = script ? "Writing …" : "Loading the models …";
    try {
      const models = await weights();
      if (mine !== turn) return;
      const strength = Number(at("strength").value), pair = [models.base, models.model(strength)];
      const [left, right] = readings(at("reading").value);
      ALMANAC.renderings.yours = yours ?? [at("before").value, at("after").value];
      if (right !== "yours") [at("before").value, at("after").value] = ALMANAC.renderings[right];
      const ids = [left, right].map((name) => {
        const [before, after] = ALMANAC.renderings[name];
        return models.tokenizer.encode(before + prompt + after);
      });
      const room = ALMANAC.config.max_position_embeddings - ALMANAC.limit;
      const longest = Math.max(...ids.map((row) => row.length));
      if (longest > room) return (at("state").textContent = `The prompt has ${longest} tokens; with ${ALMANAC.limit} for the reply the models can read ${room}: shorten it.`);
      notes(models, prompt);
      const name = strength === 1 ? "Chat model" : strength === 0 ? "Base (adapter × 0)" : `Base + ${strength.toFixed(1)} × adapter`;
      for (const [side, title, rendering] of [["left", "Base", left], ["right", name, right]]) {
        const told = rendering === "yours" ? "your template" : rendering;
        at(`${side}_name`).textContent = `${title}, ${told}`;
        at(`read_${side}_name`).textContent = `${title}, ${told}: ${ids[side === "left" ? 0 : 1].length} tokens`;
      }
      ["left", "right"].forEach((side, i) => at(`read_${side}`).replaceChildren(...ids[i].map((id) => read(models, id))));
      at("state").textContent = "Writing …";
      const begun = performance.now();
      const replies = [await write(models, pair[0], ids[0], at("left"), mine)];
      if (mine !== turn) return;
      replies.push(await write(models, pair[1], ids[1], at("right"), mine));
      if (mine !== turn) return;
      const count = replies[0].length + replies[1].length, seconds = (performance.now() - begun) / 1000;
      written = replies;
      await compare(pair[1], ids[0], replies[0], false);
      await compare(pair[0], ids[1], replies[1], true);
      if (chosen) detail(models, chosen);
      at("state").textContent = `${count} tokens in ${seconds.toFixed(2)} s. Choose a token to see what else was likely there.`;
    } catch (error) {
      if (mine === turn) at("state").textContent = `This did not work: ${error.message}.`;
    }
  }

  function read(models, id) {
    const box = element("span", visible(models.tokenizer.decode([id])), { className: "token", title: `id ${id}` });
    box.classList.toggle("special", models.tokenizer.special.has(models.tokenizer.tokens[id]));
    box.append(element("small", String(id)));
    return box;
  }

  const told = () => (at("strength_told").textContent = `× ${Number(at("strength").value).toFixed(1)}`);
  told();
  at("ask").onsubmit = (event) => (event.preventDefault(), ask());
  for (const button of at("examples").querySelectorAll("button"))
    button.onclick = () => ((at("prompt").value = button.textContent), ask());
  at("strength").oninput = told;
  at("strength").onchange = ask;
  at("reading").onchange = ask;
  for (const box of [at("before"), at("after")]) box.oninput = () => {
    yours = [at("before").value, at("after").value];
    at("reading").value = "yours";
  };
  at("shade").onchange = () => written?.flat().forEach(shade);
})();
