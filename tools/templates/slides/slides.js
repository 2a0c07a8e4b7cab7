"use strict";
// The class's hands on predictions, folded code, and slides that are too full. Hands are kept by the browser.
const slide = () => Reveal.getCurrentSlide();
const poll = () => slide().querySelector(".poll");
const key = (poll) => `sftlab:hands:${poll.dataset.poll}`;
const rows = (poll) => [...poll.querySelectorAll("li")];

function hands(poll) {
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(key(poll))); } catch { /* damaged, or not allowed */ }
  return rows(poll).map((_, i) => Math.max(0, Number(kept?.counts?.[i]) || 0));
}

const last = (poll) => { try { return JSON.parse(localStorage.getItem(key(poll)))?.last ?? -1; } catch { return -1; } };

function count(poll, choice, change) {
  const counts = hands(poll);
  if (!(choice in counts)) return;
  counts[choice] = Math.max(0, counts[choice] + change);
  localStorage.setItem(key(poll), JSON.stringify({ counts, last: choice }));
  draw();
}

function draw() {
  document.querySelectorAll(".poll").forEach((poll) => {
    const counts = hands(poll), most = Math.max(10, ...counts);
    rows(poll).forEach((row, i) => {
      row.querySelector(".bar").style.width = `${(100 * counts[i]) / most}%`;
      row.querySelector("output").textContent = counts[i];
    });
  });
}

function tell(poll, told) {
  poll.classList.toggle("told", told);
  poll.querySelector(".tell").textContent = `${told ? "hide" : "show"} the measured answer`;
  fit();
}

// After its experiment a poll's answer is a step of the slides, which an arrow takes as well.
const turn = (poll) => Reveal.nextFragment() || Reveal.prevFragment() || tell(poll, !poll.classList.contains("told"));

// A slide with little on it is drawn larger, one that is too full smaller. What has to be scrolled at any size that
// can be read is not made small for it.
// On paper nothing can be scrolled.
const printed = location.search.includes("print-pdf");
const SIZES = [120, 115, 110, 105, 100, 95, 90, 85, 80, 75, ...(printed ? [65, 55, 45] : [90])]; // percent
function fit(of) {
  const body = (of?.matches?.("section") ? of : slide()).querySelector(".body");
  const tooFull = () => body.scrollHeight > body.clientHeight || body.scrollWidth > body.clientWidth;
  body.classList.add("fitting"); // some pixels to spare: another window rounds otherwise
  const largest = body.querySelector(".picture, details[open]") ? 100 : 120;
  for (const size of SIZES.filter((size) => size <= largest)) {
    body.style.fontSize = `${size}%`;
    if (!tooFull()) break;
  }
  body.classList.remove("fitting");
  body.classList.toggle("scrolls", tooFull());
}

const scroll = (by, otherwise) => () => {
  const body = slide().querySelector(".body"), before = body.scrollTop;
  body.scrollTop += by;
  if (body.scrollTop === before) otherwise();
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button"), own = button?.closest(".poll");
  if (!own) return;
  const choice = rows(own).indexOf(button.closest("li"));
  if (button.matches(".hand")) count(own, choice, 1);
  if (button.matches(".less")) count(own, choice, -1);
  if (button.matches(".tell")) turn(own);
  if (button.matches(".anew")) { localStorage.removeItem(key(own)); draw(); }
  if (event.detail) button.blur(); // after the mouse, the keys belong to the slides again
});
addEventListener("storage", draw);

// On paper (?print-pdf) an answer stands where its experiment has been made.
Reveal.on("pdf-ready", () => {
  document.querySelectorAll(".poll:has(.fragment)").forEach((poll) => poll.classList.add("told"));
  Reveal.getSlides().forEach(fit);
  document.documentElement.dataset.printable = "yes";
});
Reveal.on("ready", () => { draw(); fit(); });
Reveal.on("slidechanged", fit);
Reveal.on("resize", () => { fit(); requestAnimationFrame(fit); });
document.addEventListener("toggle", fit, true);
Reveal.on("fragmentshown", (event) => tell(event.fragment.closest(".poll"), true));
Reveal.on("fragmenthidden", (event) => tell(event.fragment.closest(".poll"), false));
Reveal.initialize({
  width: 1280, height: 720, margin: 0, center: false, hash: true, transition: "none", pdfSeparateFragments: false, slideNumber: "c/t",
  navigationMode: "linear", scrollActivationWidth: null, plugins: [RevealNotes],
  keyboard: { 38: scroll(-120, () => Reveal.prev()), 40: scroll(120, () => Reveal.next()) },
}).then(() => {
  const bind = (keyCode, key, description, act) => Reveal.addKeyBinding({ keyCode, key, description }, act);
  for (let n = 1; n <= 9; n++) [48, 96].forEach((zero) => bind(zero + n, `${n}`, `A hand for choice ${n}`, () => poll() && count(poll(), n - 1, 1)));
  [109, 173, 189].forEach((code) => bind(code, "-", "Take back the last hand", () => poll() && count(poll(), last(poll()), -1)));
  bind(65, "A", "Show the measured answer", () => poll() && turn(poll()));
  bind(67, "C", "Unfold code or solution", () => slide().querySelectorAll("details").forEach((d) => { d.open = !d.open; }));
});
