// Faults of a page that a program can see. Each function returns sentences, one a fault.
window.measure = (() => {
  const notebook = () => document.querySelector(".jp-Notebook");
  const OUTPUT = ".jp-OutputArea-output, .jp-MarkdownOutput";
  // Drawn by libraries that place their parts themselves, partly out of sight.
  const FOREIGN = ".noUi-base, .noUi-base *, mjx-container *, mjx-assistive-mml, svg *";

  const shown = (box) => box.width > 0 && box.height > 0;
  const words = (e) => (e.innerText || e.alt || e.tagName).trim().replace(/\s+/g, " ").slice(0, 50);

  function* outputs() {
    for (const cell of notebook().querySelectorAll(".jp-Cell"))
      for (const output of cell.querySelectorAll(OUTPUT)) yield [cell.dataset.at, output];
  }

  function* texts(output) {
    const walker = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim() || parent.closest("svg, mjx-container, style, script")) continue;
      const style = getComputedStyle(parent);
      if (style.visibility === "hidden") continue;
      if (parent.closest("details:not([open])") && !parent.closest("summary")) continue; // folded
      const range = document.createRange();
      range.selectNodeContents(node);
      const boxes = [...range.getClientRects()].filter(shown);
      if (boxes.length) yield { node, parent, style, boxes };
    }
  }

  // Wider or higher than the room it has: scrolled, cut off or sticking out. Or a picture not shown.
  function cut_off() {
    const found = new Set();
    for (const [at, output] of outputs()) {
      const room = output.getBoundingClientRect();
      if (!shown(room)) continue;
      for (const image of output.querySelectorAll("img"))
        if (image.complete && !image.naturalWidth)
          found.add(`cell ${at}: this picture is not shown: ${words(image)}`);
      for (const e of [output, ...output.querySelectorAll("*")]) {
        const box = e.getBoundingClientRect();
        if (!shown(box) || e.matches(FOREIGN)) continue;
        const style = getComputedStyle(e);
        const clips = (way) => style["overflow" + way] !== "visible";
        if (clips("X") && e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1)
          found.add(`cell ${at}: ${e.scrollWidth} px wide in ${e.clientWidth}: ${words(e)}`);
        else if (clips("Y") && e.clientHeight > 1 && e.scrollHeight > e.clientHeight + 1)
          found.add(`cell ${at}: ${e.scrollHeight} px high in ${e.clientHeight}: ${words(e)}`);
        else if (box.right > room.right + 1 || box.left < room.left - 1)
          found.add(`cell ${at}: sticks out to ${box.right} of ${room.right} px: ${words(e)}`);
      }
    }
    return [...found];
  }

  // Two texts of one output, or a text and a picture, in the same place.
  function overlaps() {
    const found = new Set();
    for (const [at, output] of outputs()) {
      const placed = [];
      for (const { node, boxes } of texts(output))
        for (const box of boxes) placed.push([node, box, node.data]);
      for (const image of output.querySelectorAll("img"))
        placed.push([image, image.getBoundingClientRect(), "a picture"]);
      placed.forEach(([a, p, text], i) => {
        for (const [b, q, other] of placed.slice(i + 1)) {
          const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
          const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
          if (a !== b && wide > 2 && high > 4)
            found.add(`cell ${at}: "${text.trim().slice(0, 30)}" over "${other.trim().slice(0, 30)}"`);
        }
      });
    }
    return [...found];
  }

  function rgba(text) {
    const parts = text.match(/[\d.]+/g).map(Number);
    const scale = text.startsWith("color(srgb") ? 255 : 1;
    return [...parts.slice(0, 3).map((c) => c * scale), parts.length > 3 ? parts[3] : 1];
  }
  const mix = (under, over, share) => under.map((c, i) => c + (over[i] - c) * share);
  const over = (colour, under) => mix(under, colour.slice(0, 3), colour[3]);

  // What the eye gets: the ancestors' backgrounds on top of each other, with their opacities.
  function seen(chain, under, ink) {
    const [first, ...rest] = chain;
    const style = getComputedStyle(first);
    const ground = over(rgba(style.backgroundColor), under);
    const inner = rest.length ? seen(rest, ground, ink) : ink ? over(ink, ground) : ground;
    return mix(under, inner, Number(style.opacity));
  }
  const luminance = (colour) =>
    colour
      .map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  function contrast(a, b) {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  }

  // Text whose contrast to its background is below 4.5 (WCAG 2.2, 1.4.3, level AA).
  function pale() {
    const found = new Map();
    for (const [at, output] of outputs())
      for (const { node, parent, style } of texts(output)) {
        if (parent.closest(":disabled, .jp-mod-disabled, [data-mime-type*='jupyter.error']")) continue;
        const chain = [];
        for (let e = parent; e; e = e.parentElement) chain.unshift(e);
        const white = [255, 255, 255];
        const ratio = contrast(seen(chain, white, rgba(style.color)), seen(chain, white, null));
        const key = `${at} ${style.color} ${ratio.toFixed(1)}`;
        if (ratio < 4.5 && !found.has(key))
          found.set(key, `cell ${at}: ${ratio.toFixed(1)}, ${style.color}: ${node.data.trim().slice(0, 40)}`);
      }
    return [...found.values()];
  }

  return { cut_off, overlaps, pale };
})();
