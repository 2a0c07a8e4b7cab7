// Explorers of the book: controls move a picture. What they show is made by tools/explorers.py; a script
// explorers/NN.name.js holds it and is loaded when an explorer comes near the window. No library, no server.
window.explorers ??= (() => {
  const data = {}; // id -> packed text, filled by the scripts
  const all = (root, query) => [...root.querySelectorAll(query)];
  const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

  // --- Numbers as Python writes them: halves go to the even digit -----------------------------------
  function fixed(x, digits) {
    const told = Math.abs(x).toFixed(digits), exact = Math.abs(x).toFixed(Math.min(100, digits + 60));
    const half = /^50*$/.test(exact.slice(exact.indexOf(".") + 1 + digits));
    const even = half && /[13579]$/.test(told) ? (Number(told) - 10 ** -digits).toFixed(digits) : told;
    return (x < 0 ? "-" : "") + even;
  }

  function general(x, digits) {
    if (!x) return "0";
    let power = Math.floor(Math.log10(Math.abs(x)));
    if (Number(Math.abs(x).toExponential(digits - 1)) >= 10 ** (power + 1)) power++;
    const plain = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
    if (power < -4 || power >= digits) {
      const sign = power < 0 ? "-" : "+";
      return `${plain(fixed(x / 10 ** power, digits - 1))}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
    }
    return plain(fixed(x, digits - 1 - power));
  }

  const grouped = (text) => text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));

  // --- Computed here; the tables come from Python ------------------------------------------------------
  const COMPUTED = {
    // Notebook 04: minus log p of each token, their mean, which is the loss, and the perplexity.
    "04.edit_probabilities": ({ tokens }, chances) => {
      const terms = chances.map((p) => Math.abs(Math.log(p)));
      const mean = terms.reduce((a, b) => a + b, 0) / terms.length;
      const told = tokens.map((token, i) => `${token} ${fixed(terms[i], 2)}`).join(", ");
      return {
        kind: "tokens", rows: tokens, values: terms, high: Math.max(Math.max(...terms) * 1.35, 0.5),
        title: `Loss ${fixed(mean, 2)} nats per token: perplexity ${general(Math.exp(mean), 3)}`,
        alt: `Bar chart of minus log p for each token: ${told}. The mean, which is the loss, is ${fixed(mean, 2)}.`,
        labels: terms.map((term) => [fixed(term, 2), `p=${general(Math.exp(-term), 2)}`]),
        line: mean, line_text: `mean ${fixed(mean, 2)} = the loss`, ylabel: "−log p (nats)",
      };
    },
    // Notebook 12: the tokens of a pair, masked or trained, as `token_view` shows them.
    "12.mask_a_pair": (found, [prompt, response]) => {
      const refused = (why) => ({ html: `<p><strong>This setting cannot be shown.</strong> ${escape(why)}</p>` });
      const blank = [prompt, response].findIndex((typed) => !typed.trim());
      if (blank >= 0) return refused(found.empty[blank]);
      const tokenizer = (found.ready ??= new Almanac.Tokenizer(found.tokenizer)), [before, between, after] = found.template;
      const start = before + prompt + between, begin = tokenizer.encode(start), ids = tokenizer.encode(start + response + after);
      if (begin.some((id, i) => id !== ids[i])) return refused(found.joined);
      const end = ids.lastIndexOf(found.end) + 1, { trained, masked, font } = found.looks, count = end - begin.length;
      const spans = ids.map((id, i) => {
        const word = tokenizer.decode([id]), is_trained = i >= begin.length && i < end;
        const shown = word.replaceAll("\n", "⏎").replaceAll(" ", "·") || "∅";
        return `<span class="moving-token" title="id ${id} · label ${is_trained ? id : `masked (${found.masked_label})`}" style="${is_trained ? trained : masked}${font}">` +
          `${escape(shown)}</span>${word.endsWith("\n") ? "<br>" : ""}`;
      });
      return { html: `<div class="moving-tokens" data-ids="${ids}" data-trained="${begin.length},${end}">${spans.join("")}</div>` +
        `<p class="moving-legend"><span><span class="moving-token" style="${trained}">trained</span> ${count} of ${ids.length} tokens</span> ` +
        `<span><span class="moving-token" style="${masked}">masked</span> ${ids.length - count}</span> <span>${fixed((100 * count) / ids.length, 0)}% of the example is trained</span></p>` };
    },
    // Notebook 07: the parameters of W, A and B, drawn as areas.
    "07.count_parameters": ({ d_in, d_out, r, last }, [i, j, k]) => {
      const [columns, rows, rank] = [d_in[i], d_out[j], r[k]], count = (n) => grouped(String(n));
      const weight = columns * rows, trained = rank * (columns + rows), ratio = weight / trained;
      const short = (n) => {
        for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "K"]]) if (n >= size) return general(n / size, 3) + unit;
        return general(n, 6);
      };
      const relation = ratio === 1 ? "exactly as many as W"
        : ratio < 1 ? `${grouped(general(1 / ratio, 4))} times as many as W` : `${grouped(general(ratio, 4))} times fewer than W`;
      return {
        kind: "areas", columns, rows, rank, title: `${count(trained)} parameters, ${relation}`,
        alt: `A weight of ${count(rows)} by ${count(columns)} (${count(weight)} parameters) as a grey rectangle, A and B at ` +
          `rank ${count(rank)} as strips along its sides, to scale: ${count(trained)} parameters, ${fixed((100 * trained) / weight, 2)}%.`,
        texts: [
          [`W, frozen: ${count(rows)} × ${count(columns)} = ${short(weight)}`, "#4d4d4d"],
          [`A, above: ${count(rank)} × ${count(columns)} = ${short(rank * columns)}`, "#0072b2"],
          [`B, right: ${count(rows)} × ${count(rank)} = ${short(rows * rank)}`, "#9a6700"],
          [`fewer than W up to r = ${count(last[i][j])}`, "#1c2733"],
        ],
      };
    },
  };

  // --- Charts ------------------------------------------------------------------------------------------
  const text = (x, y, words, more = "") => `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escape(words)}</text>`;
  const line = (x1, y1, x2, y2, kind) =>
    `<line class="${kind}" x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"/>`;
  const box = (x, y, width, height, fill, more = "") =>
    `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, width).toFixed(1)}" height="${Math.max(0, height).toFixed(1)}" fill="${fill}" ${more}/>`;
  const lines = (words) => words.split("\n");
  let pen;
  function wide(words, font = "13px") { // of the longest of some words, in pixels
    pen ??= document.createElement("canvas").getContext("2d");
    pen.font = `${font} system-ui, sans-serif`;
    return Math.ceil(Math.max(0, ...[words].flat().flatMap(lines).map((w) => pen.measureText(w).width)));
  }
  const svg = (width, height, inside) =>
    `<svg width="${width}" height="${height.toFixed(0)}" viewBox="0 0 ${width} ${height.toFixed(0)}" aria-hidden="true">${inside}</svg>`;

  // Matplotlib's hatches, white on the colour. They are named: a page may hold several charts.
  const HATCHES = {
    "//": "M0 8L8 0M-2 2L2 -2M6 10L10 6", "\\\\": "M0 0L8 8M-2 6L2 10M6 -2L10 2",
    "xx": "M0 0L8 8M0 8L8 0", "--": "M0 4L8 4", "..": "M2 2h1.6M6 6h1.6",
  };
  const named = ([, colour, hatch]) => `look-${colour.slice(1)}-${Object.keys(HATCHES).indexOf(hatch)}`;
  const fill = (part) => (part[2] ? `url(#${named(part)})` : part[1]);
  const patterns = (parts) => `<defs>${parts.filter((p) => p[2]).map((p) =>
    `<pattern id="${named(p)}" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="${p[1]}"/>` +
    `<path d="${HATCHES[p[2]]}" stroke="#fff" stroke-width="1.2" fill="none"/></pattern>`).join("")}</defs>`;

  // An axis from left to right: where a value stands, and its ticks.
  function axis({ low = 0, high, log, percent, ticks = [], told: given }, left, right) {
    const to = (v) => (log ? Math.log10(v) : v), [from, end] = [to(low), to(high)];
    const place = (v) => left + ((right - left) * (to(v) - from)) / (end - from);
    let at = [...ticks]; // a copy: states share what is the same in all of them
    if (!at.length && log) for (let p = Math.ceil(from); p <= end; p++) at = [...at, 10 ** p];
    if (!at.length) {
      const most = Math.max(3, Math.floor((right - left) / 60)), rough = (end - from) / most;
      const unit = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 2.5, 5, 10].find((s) => s * unit >= 0.75 * rough) * unit;
      for (let k = Math.ceil(from / step - 1e-9); k * step <= end * (1 + 1e-9); k++) at.push(k * step);
    }
    const told = (v) => (percent ? `${Number((100 * v).toPrecision(6))}%` : grouped(String(Number(v.toPrecision(6)))));
    return { place, ticks: at.map((v, i) => [place(v), given ? given[i] : told(v)]) };
  }

  function below(ruler, top, bottom, left, right) {
    let drawn = line(left, bottom, right, bottom, "edge"), free = -Infinity;
    for (const [x, told] of ruler.ticks) {
      drawn += line(x, top, x, bottom, "grid") + line(x, bottom, x, bottom + 4, "edge");
      const half = wide(told) / 2, at = Math.max(half, x);
      if (at - half < free) continue; // no room for this number
      drawn += text(at, bottom + 18, told, 'text-anchor="middle"');
      free = at + half + 6;
    }
    return drawn;
  }

  // Upright lines with their words above them, on a second line where they would meet.
  function across(spec, ruler, top, bottom) {
    let drawn = "", free = [-Infinity, -Infinity];
    for (const [at, told] of spec.lines ?? []) {
      const x = ruler.place(at), half = wide(told) / 2, middle = Math.max(x, half);
      const level = middle - half > free[0] ? 0 : 1;
      free[level] = middle + half + 6;
      drawn += line(x, top, x, bottom, "mark") + text(middle, top - 5 - 16 * level, told, 'text-anchor="middle"');
    }
    return drawn;
  }

  // Rows with a bar of parts, a bar or a dot. In a narrow window their names stand above them.
  function rows(spec, width) {
    const stacked = spec.kind === "stacked", label = wide(spec.rows);
    const narrow = label > 0.27 * width, first = 14; // half of the first number below the axis
    const gutter = narrow || !label ? first : Math.max(first, label + 10), total = wide(spec.totals, "600 13px");
    const high = Math.max(1, ...spec.rows.map((r) => lines(r).length)) * 16, names = narrow ? high + 2 : 0;
    const thick = stacked ? (spec.rows.length > 6 ? 22 : 34) : 20, each = (narrow ? thick : Math.max(thick, high)) + 12 + names;
    const said = (spec.lines ?? []).filter(([, told]) => told).length, top = !said ? 6 : said > 1 && width < 520 ? 40 : 24, bottom = top + each * spec.rows.length + 4;
    // Where the scale ends at the longest bar, the number beside it needs room.
    const room = total && !spec.log ? total + 14 : 26;
    const ruler = axis(spec, gutter, width - room), right = ruler.place(spec.high);
    const marks = across(spec, ruler, top, bottom); // over bars, below dots
    let drawn = below(ruler, top, bottom, gutter, right) + (stacked ? "" : marks);
    spec.rows.forEach((name, row) => {
      const y = top + row * each + names + (each - names - thick) / 2 + 2, middle = y + thick / 2, words_of = lines(name);
      words_of.forEach((words, k) => {
        const up = narrow ? y - 5 - 16 * (words_of.length - 1 - k) : middle + 4.5 + 16 * (k - (words_of.length - 1) / 2);
        drawn += narrow ? text(gutter, up, words) : text(gutter - 8, up, words, 'text-anchor="end"');
      });
      let end;
      if (stacked) {
        let before = 0;
        spec.values[row].forEach((value, p) => {
          const x = ruler.place(before), next = ruler.place((before += value));
          drawn += box(x, y, next - x, thick, fill(spec.parts[p]), 'stroke="#fff" stroke-width="0.6"');
          const told = spec.inside[row][p];
          if (told && next - x > wide(told) + 4) {
            const half = wide(told) / 2 + 2, at = (x + next) / 2;
            drawn += box(at - half, middle - 9, 2 * half, 18, "#ffffffd9") + text(at, middle + 4.5, told, 'text-anchor="middle"');
          }
        });
        end = Math.max(before, spec.peaks[row] ?? 0);
        if (spec.peaks.length) drawn += line(ruler.place(spec.peaks[row]), y - 4, ruler.place(spec.peaks[row]), y + thick + 4, "peak");
      } else {
        const x = ruler.place(spec.values[row]), range = spec.ranges?.[row] ?? [], colour = spec.parts[0][1];
        end = Math.max(spec.values[row], ...range);
        if (range.length) drawn += box(ruler.place(range[0]), middle - 1.2, ruler.place(range[1]) - ruler.place(range[0]), 2.4, colour);
        drawn += spec.kind === "bars" ? box(gutter, y, x - gutter, thick, colour)
          : `<circle cx="${x.toFixed(1)}" cy="${middle}" r="5" fill="${colour}"/>`;
      }
      if (spec.totals[row]) drawn += text(ruler.place(end) + 9, middle + 4.5, spec.totals[row], 'font-weight="600"');
    });
    const legend = stacked && spec.rows.length ? spec.parts.map((part) =>
      `<span><svg width="22" height="12" aria-hidden="true">${box(0, 0, 22, 12, fill(part))}</svg> ${escape(part[0])}</span>`).join(" ") : "";
    return svg(width, bottom + 26, patterns(stacked ? spec.parts : []) + drawn + (stacked ? marks : "")) +
      (spec.xlabel ? `<p class="moving-axis">${escape(spec.xlabel)}</p>` : "") +
      (legend ? `<p class="moving-legend">${legend}</p>` : "");
  }

  // Upright bars, one for each token; a line at their mean. In a narrow window they lie.
  function tokens(spec, width) {
    const below = Math.max(...spec.labels.map((label) => wide(label, "11.5px"))) + 6;
    if (width < 44 + below * spec.rows.length)
      return rows({ ...spec, kind: "bars", parts: [["", "#009e73", ""]], totals: spec.labels.map(([term, p]) => `${term}, ${p}`),
        high: Math.max(0.5, ...spec.values), lines: [[spec.line, spec.line_text]], xlabel: spec.ylabel }, width);
    const left = 44, names = wide(spec.rows) * 0.87 + 24, top = 10, bottom = top + 220;
    const across = width - 12, each = (across - left) / spec.rows.length;
    const up = axis({ high: spec.high }, bottom, top), x = (i) => left + each * (i + 0.5);
    let drawn = "";
    for (const [y, told] of axis({ high: spec.high }, 0, 220).ticks.map(([d, told]) => [bottom - d, told]))
      drawn += line(left, y, across, y, "grid") + text(left - 6, y + 4.5, told, 'text-anchor="end"');
    drawn += line(left, bottom, across, bottom, "edge");
    spec.rows.forEach((token, i) => {
      const y = up.place(spec.values[i]);
      drawn += box(x(i) - each * 0.4, y, each * 0.8, bottom - y, "#009e73");
      drawn += `<text transform="translate(${(x(i) + 4).toFixed(1)} ${bottom + 14}) rotate(-60)" text-anchor="end">${escape(token)}</text>`;
    });
    const mean = up.place(spec.line);
    drawn += line(left, mean, across, mean, "mark");
    spec.rows.forEach((_, i) => {
      const y = up.place(spec.values[i]);
      drawn += box(x(i) - below / 2, y - 31, below, 29, "#ffffffd9");
      spec.labels[i].forEach((told, k) => (drawn += text(x(i), y - 19 + 13 * k, told, 'text-anchor="middle" class="small"')));
    });
    return `<p class="moving-axis start">${escape(spec.ylabel)}; dotted line: ${escape(spec.line_text)}</p>` +
      svg(width, bottom + names, drawn);
  }

  // Lines over an axis, in one panel or several. Names stand at their ends, or in a legend.
  const SHAPES = {
    o: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", s: "M-3.6-3.6h7.2v7.2h-7.2z", "^": "M0-4.6L4.4 3.4h-8.8z",
    v: "M0 4.6L4.4-3.4h-8.8z", D: "M0-5L4.4 0L0 5L-4.4 0z", P: "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
  };
  const stroke = (s) => `stroke="${s.colour}" stroke-width="${s.pale ? 1 : 2.2}" stroke-dasharray="${s.dash}" opacity="${s.pale ? 0.6 : 1}" fill="none"`;
  const marker = (s, x, y) => `<path transform="translate(${x.toFixed(1)} ${y.toFixed(1)})" d="${SHAPES[s.shape]}" fill="${s.colour}"/>`;

  function scale({ scale, low, high, linthresh, linscale }, from, to) {
    const log = (v) => Math.log10(Math.max(v, 1e-12)), near = linscale / 0.9; // as matplotlib's symlog, base 10
    const on = scale === "log" ? log : scale === "symlog"
      ? (v) => (Math.abs(v) <= linthresh ? (near * v) / linthresh : Math.sign(v) * (near + log(Math.abs(v) / linthresh)))
      : (v) => v;
    return (v) => from + ((to - from) * (on(v) - on(low))) / (on(high) - on(low));
  }

  function panel({ name, series, x, y, lines: upright, marked }, width, direct, id) {
    const told = (v) => grouped(String(Number(v.toPrecision(6))));
    const left = wide(y.ticks.map(told)) + 12, ends = direct ? series.filter((s) => s.label) : [];
    const right = width - (ends.length ? wide(ends.map((s) => s.label), "600 13px") + 36 : 14);
    const top = upright.length ? 26 : 8, bottom = top + 230, px = scale(x, left, right), py = scale(y, bottom, top);
    const ruler = x.ticks.length ? { ticks: x.ticks.map((v) => [px(v), told(v)]) } : axis(x, left, right);
    let drawn = below(ruler, top, bottom, left, right) + line(left, top, left, bottom, "edge");
    for (const v of y.ticks) drawn += line(left - 4, py(v), left, py(v), "edge") + text(left - 7, py(v) + 4.5, told(v), 'text-anchor="end"');
    for (const [at, words] of upright) drawn += line(px(at), top, px(at), bottom, "mark") + text(px(at), top - 7, words, 'text-anchor="middle"');
    let inside = "";
    for (const s of [...series].sort((a, b) => b.pale - a.pale)) {
      const at = (k) => s.points.map((p) => `${px(p[0]).toFixed(1)},${py(p[k]).toFixed(1)}`);
      if (!s.pale && s.points.some(([, , low, high]) => low < high))
        inside += `<polygon points="${[...at(2), ...at(3).reverse()].join(" ")}" fill="${s.colour}" opacity="0.18"/>`;
      inside += `<polyline points="${at(1).join(" ")}" ${stroke(s)}/>`;
      if (!s.pale && s.points.length < 40) inside += s.points.map(([v, w]) => marker(s, px(v), py(w))).join("");
    }
    for (const [v, w, words] of marked) inside += `<circle cx="${px(v)}" cy="${py(w)}" r="5"/>` + text(px(v) + 9, py(w) - 7, words);
    // Names clear of each other: pushed down from the top, then up from the bottom.
    const places = ends.map((s) => ({ s, y: py(s.points.at(-1)[1]) })).sort((a, b) => a.y - b.y);
    places.forEach((p, i) => i && (p.y = Math.max(p.y, places[i - 1].y + 16)));
    for (let i = places.length - 1, limit = bottom; i >= 0; i--) limit = (places[i].y = Math.min(places[i].y, limit)) - 16;
    for (const { s, y } of places)
      drawn += `<path d="M${right + 9} ${y.toFixed(1)}h16" ${stroke(s)}/>` + text(right + 30, y + 4.5, s.label, `font-weight="${s.pale ? 400 : 600}"`);
    return `<div><p class="moving-axis start">${name ? `<strong>${escape(name)}</strong> · ` : ""}${escape(y.label)}</p>` +
      svg(width, bottom + 26, `<clipPath id="${id}"><rect x="${left}" y="${top - 6}" width="${right - left + 6}" height="${bottom - top + 12}"/></clipPath>` +
        drawn + `<g clip-path="url(#${id})">${inside}</g>`) +
      `<p class="moving-axis">${escape(x.label)}</p></div>`;
  }

  let clips = 0;
  function curves({ panels, direct }, width) {
    const beside = panels.length > 1 && width >= 640, each = beside ? Math.floor((width - 20) / panels.length) : width;
    const drawn = panels.map((one) => panel(one, each, direct, `moving-clip-${clips++}`)).join("");
    const legend = direct ? "" : `<p class="moving-legend">${panels[0].series.map((s) =>
      `<span><svg width="34" height="12" aria-hidden="true"><path d="M0 6h34" ${stroke(s)}/>${marker(s, 17, 6)}</svg> ${escape(s.label)}</span>`).join(" ")}</p>`;
    return `<div class="moving-panels">${drawn}</div>${legend}`;
  }

  // W as a rectangle, A above it and B to its right: areas to scale.
  function areas({ columns, rows, rank, texts }, width) {
    const gap = 0.05 * Math.max(columns, rows, rank), high = rows + gap + rank, long = columns + gap + rank;
    const space = Math.min(width - 8, 430), scale = Math.min(space / long, 330 / high), s = (v) => v * scale;
    const drawn = box(0.5, s(rank + gap), s(columns), s(rows), "#d1d1d1") +
      box(0.5, 0.5, s(columns), s(rank), "#0072b2", 'stroke="#0072b2" stroke-width="0.8"') +
      box(s(columns + gap), s(rank + gap), s(rank), s(rows), "#e69f00", 'stroke="#e69f00" stroke-width="0.8"');
    const told = texts.map(([words, colour]) => `<li style="color:${colour}">${escape(words)}</li>`).join("");
    return `<div class="moving-areas"><div>${svg(Math.ceil(s(long)) + 2, s(high) + 2, drawn)}</div><ul>${told}</ul></div>`;
  }

  function chart(spec, width) {
    const draw = { tokens, areas, curves }[spec.kind] ?? rows;
    return `<div class="moving-chart" role="img" aria-label="${escape(spec.alt)}"><p class="moving-title">${escape(spec.title)}</p>${draw(spec, width)}</div>`;
  }

  // --- What an explorer shows in a state ---------------------------------------------------------------
  async function unpacked(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  const made = {}; // id -> promise of its data
  function load(id) {
    return (made[id] ??= new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = `explorers/${id}.js`;
      script.onload = () => unpacked(data[id]).then(done, fail);
      script.onerror = () => fail(new Error(`explorers/${id}.js is missing`));
      document.head.append(script);
    }));
  }

  // at: the choice of each control; counts: how many choices each has; exact: values between two choices.
  function state(id, found, at, counts, exact = at) {
    if (found.tables) {
      const shown = COMPUTED[id](found.tables, exact);
      return shown.html ? shown : { spec: shown };
    }
    const index = at.reduce((before, choice, k) => before * counts[k] + choice, 0);
    return found.html ? { html: found.html[index] } : { spec: { ...found.same, ...found.charts[index] } };
  }

  // --- Controls ------------------------------------------------------------------------------------------
  // Each becomes a function that gives its choice, the number of choices, and its exact value.
  function control(part, changed) {
    if (part.matches("fieldset")) {
      const options = all(part, "input");
      for (const option of options) option.onchange = changed;
      return () => [options.findIndex((o) => o.checked), options.length];
    }
    if (part.type === "checkbox") {
      part.onchange = changed;
      return () => [Number(part.checked), 2];
    }
    if (part.matches("textarea")) {
      part.oninput = changed;
      return () => [0, 1, part.value];
    }
    if (part.matches("select")) {
      part.onchange = changed;
      return () => [part.selectedIndex, part.options.length];
    }
    const labels = JSON.parse(part.dataset.labels), values = part.dataset.values && JSON.parse(part.dataset.values);
    let exact = values && Number(part.dataset.exact);
    part.oninput = () => {
      exact = values?.[part.value];
      const told = values ? fixed(exact, 3) : labels[part.value];
      part.setAttribute("aria-valuetext", told);
      part.parentElement.querySelector("output").textContent = told;
      changed();
    };
    return () => [Number(part.value), labels.length, exact];
  }

  function start(root) {
    const id = root.dataset.explorer, stage = root.querySelector(".moving-stage"), told = root.querySelector(".moving-told");
    let shown = "", timer, turn = 0;
    async function show(moved) {
      const mine = ++turn, read = parts.map((part) => part());
      let now;
      try {
        now = state(id, await load(id), read.map((r) => r[0]), read.map((r) => r[1]), read.map((r) => r[2] ?? r[0]));
      } catch (error) {
        told.className = "moving-told seen";
        told.textContent = `It cannot move: ${error.message}.`;
        return;
      }
      if (mine !== turn) return; // another change came meanwhile
      const html = now.spec ? chart(now.spec, Math.max(280, Math.floor(stage.clientWidth))) : now.html;
      if (html === shown) return;
      // A lower picture leaves the room of a higher one: what stands below does not jump.
      if (moved) stage.style.minHeight = `${stage.offsetHeight}px`;
      stage.innerHTML = shown = html;
      scrolls();
      if (!moved) return;
      clearTimeout(timer); // said once the hand rests
      const words = stage.querySelector("[alt], [aria-label]");
      timer = setTimeout(() => (told.textContent = words ? words.alt ?? words.ariaLabel : "The table has changed."), 800);
    }
    // What is wider than its card scrolls, and keys must be able to scroll it as well.
    function scrolls() {
      if (stage.scrollWidth > stage.clientWidth + 1) stage.tabIndex = 0;
      else stage.removeAttribute("tabindex");
    }
    new ResizeObserver(scrolls).observe(stage);
    const parts = all(root, "fieldset, select, textarea, input[type=range], input[type=checkbox]").map((part) => control(part, () => show(true)));
    const near = new IntersectionObserver((seen) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      load(id).then((found) => {
        if (found.html) return; // the first table is there already
        show(false);
        let width = stage.clientWidth;
        new ResizeObserver(() => {
          if (stage.clientWidth === width) return;
          width = stage.clientWidth;
          stage.style.minHeight = "";
          show(false);
        }).observe(stage);
      }, () => show(false));
    }, { rootMargin: "800px" });
    near.observe(root);
  }

  document.addEventListener("DOMContentLoaded", () => all(document, ".moving").forEach(start));
  return { data, load, state, chart };
})();
