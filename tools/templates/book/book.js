// Predictions in the book: a choice is kept by the browser, and the measured answer is told after it.
(() => {
  const key = (ask) => `sftlab:prediction:${ask.dataset.poll}`;
  const kept = (ask) => { try { return localStorage.getItem(key(ask)); } catch { return null; } };
  const keep = (ask, choice) => { try { localStorage.setItem(key(ask), choice); } catch { /* not allowed here */ } };

  function show(ask, choice) {
    const buttons = [...ask.querySelectorAll("button")], chosen = buttons.find((b) => b.textContent === choice);
    if (!chosen) return;
    for (const button of buttons) button.setAttribute("aria-pressed", button === chosen);
    const settled = ask.dataset.settled === "yes", right = chosen.dataset.measured === "yes";
    const verdict = !settled ? "That may be." : right ? "You were right." : "It turned out otherwise.";
    ask.querySelector(".verdict").textContent = verdict;
    ask.querySelector(".answer").hidden = false;
    for (const place of document.querySelectorAll(`.yours[data-poll="${ask.dataset.poll}"]`))
      place.textContent = `You predicted “${choice}”. ${verdict}`;
  }

  for (const ask of document.querySelectorAll(".ask")) {
    for (const button of ask.querySelectorAll("button"))
      button.onclick = () => {
        keep(ask, button.textContent);
        show(ask, button.textContent);
      };
    show(ask, kept(ask));
  }
})();
