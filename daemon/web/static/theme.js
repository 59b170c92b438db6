// Before the first paint: the theme that this reader chose, if any.
(() => {
  try {
    const chosen = localStorage.getItem("tiltd-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* no storage, no choice */ }
})();
