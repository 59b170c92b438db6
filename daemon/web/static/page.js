// Everything here is a convenience: without it the pages read and act the same, and do not move by themselves.
"use strict";

const LIVE_PAUSE_MS = 1500;

// -- times in the reader's own zone -------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "2-digit" });

function ago(seconds) {
  const ahead = seconds < 0;
  const s = Math.abs(seconds);
  let text;
  if (s < 5) return "now";
  if (s < 90) text = `${Math.round(s)} s`;
  else if (s < 5400) text = `${Math.round(s / 60)} min`;
  else if (s < 129600) text = `${Math.round(s / 3600)} h`;
  else text = `${Math.round(s / 86400)} d`;
  return ahead ? `in ${text}` : `${text} ago`;
}

function tellTimes(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const when = new Date(element.dateTime);
    const today = day.format(when) === day.format(now);
    const local = `${today ? "" : `${day.format(when)} `}${clock.format(when)}`;
    const relative = element.closest("[data-relative]") !== null;
    element.textContent = relative ? ago((now - when) / 1000) : local;
    element.title = `${day.format(when)} ${clock.format(when)}`;
  }
}

// -- live: the same page is asked for again, and its live regions are put in place of the old ----------------

let busy = false;
let again = false;

function holdsFocus(region) {
  const active = document.activeElement;
  return region.contains(active) && active.matches("input, select, textarea");
}

function ticked() {
  return [...document.querySelectorAll("input[name=dataset]:checked")].map((box) => box.value);
}

function put(fresh) {
  const kept = new Set(ticked());
  for (const region of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(region.id);
    if (!next || holdsFocus(region) || next.innerHTML === region.dataset.seen) continue;
    const active = document.activeElement;
    const focused = region.contains(active) ? active.getAttribute("href") : null;
    const source = next.innerHTML;
    const open = [...region.querySelectorAll("details[open]")].map((each) => each.id);
    region.replaceChildren(...next.childNodes);
    region.dataset.seen = source;
    for (const id of open) if (id) document.getElementById(id)?.setAttribute("open", "");
    tellTimes(region);
    if (focused) region.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
  for (const box of document.querySelectorAll("input[name=dataset]")) box.checked = kept.has(box.value);
  countTicked();
}

async function refresh() {
  if (busy || document.hidden) { again = true; return; }
  busy = true;
  again = false;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (response.ok) put(new DOMParser().parseFromString(await response.text(), "text/html"));
  } catch { /* the line below the title says so */ }
  setTimeout(() => { busy = false; if (again) refresh(); }, LIVE_PAUSE_MS);
}

function concerns(change) {
  const only = document.body.dataset.dataset;
  if (only) return change.many || only in change.datasets;
  const nodes = document.body.dataset.nodes !== undefined;
  return change.many || Object.keys(change.datasets).length > 0 || (nodes && change.nodes);
}

function listen() {
  const light = document.getElementById("live");
  if (!light || !document.querySelector("[data-live]") || !window.EventSource) return;
  const say = (state, words) => { light.dataset.state = state; light.querySelector("span").textContent = words; };
  let source = null;
  const open = () => {
    source = new EventSource("/api/v1/events");
    source.onopen = () => say("on", "live");
    source.onerror = () => say("off", "not live");
    source.addEventListener("change", (event) => { if (concerns(JSON.parse(event.data))) refresh(); });
  };
  const close = () => { source?.close(); source = null; };
  // A browser has six connections to a host: a page that nobody sees must not keep one.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); return; }
    open();
    refresh();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) { open(); refresh(); } });
  if (!document.hidden) open();
}

// -- the list: search as one types, all boxes at once ----------------------------------------------------------

function searching() {
  const form = document.getElementById("filter");
  if (!form) return;
  let timer = 0;
  const ask = async () => {
    const fields = [...new FormData(form)].filter(([, value]) => value !== "");
    const address = `${form.getAttribute("action")}?${new URLSearchParams(fields)}`.replace(/\?$/, "");
    history.replaceState(null, "", address);
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const region of document.querySelectorAll("[data-live]")) delete region.dataset.seen;
    put(fresh);
  };
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 200); });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); ask(); });
}

function countTicked() {
  const bar = document.getElementById("many");
  if (!bar) return;
  const count = ticked().length;
  bar.dataset.count = String(count);
  const told = document.getElementById("ticked");
  if (told) told.textContent = count ? `${count} ticked` : "Tick series to act on them";
}

function boxes() {
  document.addEventListener("change", (event) => {
    if (event.target.matches("#all")) {
      for (const box of document.querySelectorAll("input[name=dataset]")) box.checked = event.target.checked;
    }
    if (event.target.matches("#all, input[name=dataset]")) countTicked();
  });
  countTicked();
}

// -- options of a rerun: those whose name or meaning has the word ------------------------------------------------

function optionFilter() {
  const field = document.getElementById("option-filter");
  if (!field) return;
  field.closest(".wanted").hidden = false;
  field.addEventListener("input", () => {
    const word = field.value.trim().toLowerCase();
    for (const row of document.querySelectorAll(".option")) row.hidden = !row.textContent.toLowerCase().includes(word);
  });
}

// -- keys, theme ----------------------------------------------------------------------------------------------

function keys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing) {
      const field = document.querySelector("input[type=search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    }
    if ((event.key === "j" || event.key === "k") && !typing) {
      const links = [...document.querySelectorAll("main a.to")];
      const at = links.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1);
      links[Math.max(0, Math.min(links.length - 1, at))]?.focus();
    }
  });
}

function theme() {
  const button = document.getElementById("theme");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("tiltd-theme", root.dataset.theme); } catch { /* for this page only */ }
  });
}

tellTimes(document);
setInterval(() => tellTimes(document), 10000);
listen();
searching();
boxes();
optionFilter();
keys();
theme();
document.documentElement.dataset.ready = "";
