// The workbook's embedded models in a web page: tokenizer, forward pass and greedy decoding, written out
// in plain JavaScript. What `sftlab.generate` writes with PyTorch, this writes too, token by token.
// Needs ALMANAC (weights.js, made by tools/live.py). No library and no server; opened from a file as well.
window.Almanac = (() => {
  // --- Files ------------------------------------------------------------------------------------
  async function unpacked(base64) {
    const packed = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // A safetensors file: the header's length (8 bytes), a header in JSON, the numbers.
  function tensors(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const start = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const found = {};
    delete header.__metadata__;
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
      const part = bytes.slice(start + from, start + to).buffer;
      if (dtype === "F32") found[name] = { shape, data: new Float32Array(part) };
      else if (dtype === "BF16") {
        // A bfloat16 is the upper half of a float32.
        const halves = new Uint16Array(part), wide = new Uint32Array(halves.length);
        for (let i = 0; i < halves.length; i++) wide[i] = halves[i] << 16;
        found[name] = { shape, data: new Float32Array(wide.buffer) };
      } else throw new Error(`${name} is stored as ${dtype}: BF16 and F32 can be read`);
    }
    return found;
  }

  // --- Tokenizer: byte-level BPE, as GPT-2's -------------------------------------------------------
  // Each byte is written as a character that can be seen: printable ones as themselves.
  const BYTES = (() => {
    const seen = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const to = [], from = {};
    for (let b = 0, next = 256; b < 256; b++) to[b] = String.fromCharCode(seen(b) ? b : next++);
    to.forEach((c, b) => (from[c] = b));
    return { to, from };
  })();
  const S = "\\p{White_Space}";
  const PIECES = new RegExp(
    `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${S}\\p{L}\\p{N}]+|${S}+(?!\\P{White_Space})|${S}+`, "gu");

  class Tokenizer {
    constructor(file) {
      this.ids = new Map(Object.entries(file.model.vocab));
      this.special = new Map(file.added_tokens.map((t) => [t.content, t.id]));
      this.tokens = [];
      for (const [token, id] of [...this.ids, ...this.special]) this.tokens[id] = token;
      this.ranks = new Map(file.model.merges.map((m, rank) => [Array.isArray(m) ? m.join(" ") : m, rank]));
      const escaped = [...this.special.keys()].map((t) => t.replace(/[|\\{}()[\]^$+*?.]/g, "\\$&"));
      this.borders = new RegExp(`(${escaped.join("|")})`);
    }

    encode(text) {
      const ids = [];
      for (const part of text.toWellFormed().split(this.borders)) {
        if (this.special.has(part)) ids.push(this.special.get(part));
        else for (const [piece] of part.matchAll(PIECES)) ids.push(...this.merged(piece));
      }
      return ids;
    }

    // Join the two neighbors whose merge was learned first, until no merge is left.
    merged(piece) {
      let parts = [...new TextEncoder().encode(piece)].map((b) => BYTES.to[b]);
      for (;;) {
        let best = Infinity;
        for (let i = 0; i + 1 < parts.length; i++)
          best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
        if (best === Infinity) return parts.map((p) => this.ids.get(p));
        const next = [];
        for (let i = 0; i < parts.length; i++)
          if (i + 1 < parts.length && this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best)
            next.push(parts[i] + parts[++i]);
          else next.push(parts[i]);
        parts = next;
      }
    }

    decode(ids) {
      let text = "", bytes = [];
      const flush = () => ((text += new TextDecoder().decode(Uint8Array.from(bytes))), (bytes = []));
      for (const id of ids) {
        const token = this.tokens[id];
        if (this.special.has(token)) flush(), (text += token);
        else for (const c of token) bytes.push(BYTES.from[c]);
      }
      flush();
      return text;
    }
  }

  // --- Model: a Llama with one key/value head, a position at a time ------------------------------------
  // out = W x; W has a row for each number of out. Four rows at once, so that x is read once for them.
  function linear(W, x, out) {
    const n = x.length;
    for (let r = 0; r < out.length; r += 4) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let i = 0, one = r * n, two = one + n, three = two + n, four = three + n; i < n; i++) {
        const value = x[i];
        a += W[one + i] * value;
        b += W[two + i] * value;
        c += W[three + i] * value;
        d += W[four + i] * value;
      }
      out[r] = a;
      out[r + 1] = b;
      out[r + 2] = c;
      out[r + 3] = d;
    }
    return out;
  }

  function rms_norm(x, weight, eps, out) {
    let squares = 0;
    for (const value of x) squares += value * value;
    const scale = 1 / Math.sqrt(squares / x.length + eps);
    for (let i = 0; i < x.length; i++) out[i] = weight[i] * (x[i] * scale);
    return out;
  }

  function softmax(x) {
    let most = -Infinity, sum = 0;
    for (const value of x) most = Math.max(most, value);
    const out = new Float64Array(x.length);
    for (let i = 0; i < x.length; i++) sum += out[i] = Math.exp(x[i] - most);
    for (let i = 0; i < x.length; i++) out[i] /= sum;
    return out;
  }

  function argmax(x) {
    let best = 0;
    for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i;
    return best;
  }

  // Rotate the pairs (i, i + half) of each head by angles that grow with the position.
  function rotate(x, at, config) {
    const half = config.head_dim / 2;
    for (let head = 0; head < x.length; head += config.head_dim)
      for (let i = 0; i < half; i++) {
        const angle = at * config.rope_parameters.rope_theta ** (-i / half);
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        const [a, b] = [x[head + i], x[head + i + half]];
        x[head + i] = a * cos - b * sin;
        x[head + i + half] = b * cos + a * sin;
      }
  }

  class Model {
    constructor(config, weights) {
      Object.assign(this, { config, weights });
    }

    // What was read so far: keys and values of each layer.
    start() {
      return { length: 0, layers: Array.from({ length: this.config.num_hidden_layers }, () => ({ keys: [], values: [] })) };
    }

    // Read one token; returns the logits of the next, if they are wanted.
    step(state, id, wanted = true) {
      const c = this.config, d = c.hidden_size, size = c.head_dim, heads = c.num_attention_heads;
      const shared = heads / c.num_key_value_heads;
      const W = (name) => this.weights[`model.${name}.weight`].data;
      const x = W("embed_tokens").slice(id * d, (id + 1) * d);
      const normed = new Float32Array(d), added = new Float32Array(d);
      const add = () => added.forEach((value, i) => (x[i] += value));
      state.layers.forEach(({ keys, values }, number) => {
        const L = (name) => W(`layers.${number}.${name}`);
        rms_norm(x, L("input_layernorm"), c.rms_norm_eps, normed);
        const q = linear(L("self_attn.q_proj"), normed, new Float32Array(heads * size));
        const k = linear(L("self_attn.k_proj"), normed, new Float32Array(c.num_key_value_heads * size));
        const v = linear(L("self_attn.v_proj"), normed, new Float32Array(c.num_key_value_heads * size));
        rotate(q, state.length, c);
        rotate(k, state.length, c);
        keys.push(k);
        values.push(v);
        const read = new Float32Array(heads * size);
        for (let h = 0; h < heads; h++) {
          const own = h * size, theirs = Math.floor(h / shared) * size;
          const scores = softmax(keys.map((key) => {
            let sum = 0;
            for (let i = 0; i < size; i++) sum += q[own + i] * key[theirs + i];
            return sum / Math.sqrt(size);
          }));
          scores.forEach((share, at) => {
            for (let i = 0; i < size; i++) read[own + i] += share * values[at][theirs + i];
          });
        }
        linear(L("self_attn.o_proj"), read, added);
        add();
        rms_norm(x, L("post_attention_layernorm"), c.rms_norm_eps, normed);
        const gate = linear(L("mlp.gate_proj"), normed, new Float32Array(c.intermediate_size));
        const up = linear(L("mlp.up_proj"), normed, new Float32Array(c.intermediate_size));
        for (let i = 0; i < gate.length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
        linear(L("mlp.down_proj"), gate, added);
        add();
      });
      state.length++;
      if (!wanted) return null;
      rms_norm(x, W("norm"), c.rms_norm_eps, normed);
      return linear(W("embed_tokens"), normed, new Float32Array(c.vocab_size)); // the head is the embedding
    }

    // The logits after each token.
    logits(ids) {
      const state = this.start();
      return ids.map((id) => this.step(state, id));
    }

    // Greedy: the likeliest token, until one of `stops` or the limit. A token at a time, so that the
    // page can show it: for await (const { id, chances, stopped } of model.write(…)).
    async *write(ids, limit, stops) {
      const state = this.start();
      let logits;
      ids.forEach((id, at) => (logits = this.step(state, id, at === ids.length - 1)));
      for (let n = 0; n < limit; n++) {
        const id = argmax(logits), stopped = stops.includes(id);
        yield { id, chances: softmax(logits), stopped };
        if (stopped) return;
        logits = this.step(state, id);
        if (n % 4 === 3) await new Promise((done) => setTimeout(done)); // the page draws
      }
    }
  }

  // --- The base, the chat model, and what lies between -----------------------------------------------
  // LoRA: W + strength · α/r · B A. Strength 0 is the base, 1 the chat model as it was merged.
  function with_adapter(base, adapter, settings, strength) {
    const weights = { ...base.weights }, scale = (strength * settings.lora_alpha) / settings.r;
    for (const name of strength ? Object.keys(adapter) : []) {
      if (!name.endsWith("lora_A.weight")) continue;
      const A = adapter[name], B = adapter[name.replace("lora_A", "lora_B")];
      const target = name.replace("base_model.model.", "").replace(".lora_A", "");
      const { shape, data } = base.weights[target], [rows, columns] = shape, r = A.shape[0];
      const merged = data.slice();
      for (let i = 0; i < rows; i++)
        for (let k = 0; k < r; k++) {
          const factor = scale * B.data[i * r + k];
          for (let j = 0; j < columns; j++) merged[i * columns + j] += factor * A.data[k * columns + j];
        }
      weights[target] = { shape, data: merged };
    }
    return new Model(base.config, weights);
  }

  let loaded;
  function load(file = window.ALMANAC) {
    loaded ??= (async () => {
      const [base, adapter, tokenizer] = await Promise.all([file.base, file.adapter, file.tokenizer].map(unpacked));
      const model = new Model(file.config, tensors(base)), lora = tensors(adapter), made = new Map();
      return {
        tokenizer: new Tokenizer(JSON.parse(new TextDecoder().decode(tokenizer))),
        base: model,
        model(strength) {
          if (!made.has(strength)) made.set(strength, with_adapter(model, lora, file.adapter_config, strength));
          return made.get(strength);
        },
      };
    })();
    return loaded;
  }

  return { load, softmax, argmax, Tokenizer };
})();
