// What a page can do more with a script: change its colours, and follow what is live. Everything else
// works without it.
"use strict";

/** The switch of colours: those of the system, the other ones, and back. */
function theme() {
  const button = document.getElementById("theme");
  if (!button) return;
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  const label = () => {
    const other = shown() === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Show ${other} colours`);
    button.title = `Show ${other} colours`;
  };
  button.addEventListener("click", () => {
    const other = shown() === "dark" ? "light" : "dark";
    const isOfSystem = other === (system.matches ? "dark" : "light");
    if (isOfSystem) delete root.dataset.theme;
    else root.dataset.theme = other;
    try {
      if (isOfSystem) localStorage.removeItem("annals-theme");
      else localStorage.setItem("annals-theme", other);
    } catch {
      // A browser that keeps nothing: the choice holds for this page.
    }
    label();
  });
  system.addEventListener("change", label);
  label();
  button.hidden = false;
}

/** Follows the live part of the page, while somebody may look at it and nobody has stopped it. */
function live() {
  const part = document.getElementById("live");
  const button = document.getElementById("live-switch");
  if (!part || !button || !window.EventSource) return;
  const word = button.querySelector(".word");
  let source = null;
  let isWanted = true;
  const tell = (state, text, title) => {
    button.dataset.state = state;
    word.textContent = text;
    button.title = title;
    button.setAttribute("aria-pressed", String(isWanted));
  };
  const stop = () => {
    source?.close();
    source = null;
  };
  const start = () => {
    if (source || !isWanted || document.hidden) return;
    source = new EventSource(part.dataset.live);
    source.onmessage = (event) => {
      // Nothing is changed under the hands of somebody who is in it, or has marked text of it.
      const selection = getSelection();
      const isMarked = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
      if (part.contains(document.activeElement) || isMarked) return;
      const scrolled = [...part.querySelectorAll(".wide")].map((box) => box.scrollLeft);
      part.innerHTML = event.data;
      part.querySelectorAll(".wide").forEach((box, index) => {
        box.scrollLeft = scrolled[index] ?? 0;
      });
      tell("on", "Live", "Stop following");
    };
    source.onopen = () => tell("on", "Live", "Stop following");
    source.onerror = () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      stop();
      tell("off", "Not live", "The node follows no more pages at present; follow this one again");
      isWanted = false;
      button.setAttribute("aria-pressed", "false");
    };
  };
  button.addEventListener("click", () => {
    isWanted = !isWanted;
    if (isWanted) {
      tell("on", "Live", "Stop following");
      start();
    } else {
      stop();
      tell("off", "Paused", "Follow again");
    }
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  tell("on", "Live", "Stop following");
  button.hidden = false;
  start();
}

/** Shows the moment that a slider was moved to, once it rests. */
function slider() {
  const form = document.querySelector("[data-slider]");
  const range = form?.querySelector("input[type=range]");
  if (!range) return;
  const shown = form.querySelector("output");
  let rest = 0;
  range.addEventListener("input", () => {
    shown.value = range.value;
    clearTimeout(rest);
  });
  range.addEventListener("change", () => {
    clearTimeout(rest);
    rest = setTimeout(() => form.requestSubmit(), 200);
  });
}

theme();
live();
slider();

/** In a narrow window, the menu shows the room that is looked at. */
function menu() {
  const current = document.querySelector(".rooms [aria-current]");
  const strip = current?.closest(".rooms");
  if (strip) strip.scrollLeft = current.offsetLeft - (strip.clientWidth - current.offsetWidth) / 2;
}

menu();
