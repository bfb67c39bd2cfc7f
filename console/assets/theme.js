// Sets the colours that were chosen before anything is drawn. Without a choice, those of the system.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("annals-theme");
  } catch {
    // A browser that keeps nothing: the colours of the system.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
