// The dashboard: pages by the hash of the address, one poll, and the overview.

import * as catalog from "./collections.js";
import {
  announce, api, bytes, changed, collections, duration, errorBox, fixed, h, int, jobsOf, jobView, micros, muted, onChange, onJobEnd, panel, patch, percent, short, spark, stack,
  state, tag, takeJobs, timeChart, UNKNOWN,
} from "./lib.js";
import * as reference from "./reference.js";
import * as search from "./search.js";

// ---- The poll ----

const EVERY = 2000;
const KEPT_SECONDS = 300;
/** Percentiles are of the searches of the last so many seconds. */
const WINDOW = 10;
const LOW_RECALL = 0.9;
const NEARLY_FULL = 0.8;
const PLANS = ["graph", "filtered", "exact"];
const raw = [];
let timer = 0;
let isAsking = false;

const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);

/** The time under which `part` of the searches stayed, between the bounds of a histogram. */
function percentile(counts, bounds, part) {
  const total = sum(counts);
  if (total === 0) return null;
  let before = 0;
  for (const [i, count] of counts.entries()) {
    if (before + count >= part * total && count > 0) {
      if (i >= bounds.length) return Infinity;
      const low = i === 0 ? 0 : bounds[i - 1];
      return low + (bounds[i] - low) * (part * total - before) / count;
    }
    before += count;
  }
  return null;
}

function note(overview) {
  const { counters, uptime_seconds: t } = overview;
  if (!counters || typeof t !== "number") return;
  // After a new start of the server all counts from nothing.
  if (raw.length > 0 && t < raw.at(-1).t) {
    raw.length = 0;
    state.history.length = 0;
  }
  const before = raw.at(-1);
  raw.push({ t, counters, resident: overview.resident_bytes });
  while (raw[0].t < t - KEPT_SECONDS - WINDOW) raw.shift();
  if (!before || t - before.t < 0.2) return;
  const from = raw.findLast((one) => one.t <= t - WINDOW) ?? raw[0];
  const counts = (of, plan) => of.searches?.[plan]?.counts ?? [];
  const grown = (old, plan) => counts(counters, plan).map((count, i) => count - (counts(old, plan)[i] ?? 0));
  const values = { rss: overview.resident_bytes ?? null };
  let all = 0;
  let searches = 0;
  for (const plan of PLANS) {
    values[`qps_${plan}`] = sum(grown(before.counters, plan)) / (t - before.t);
    all += values[`qps_${plan}`];
    const last = grown(from.counters, plan);
    searches += sum(last);
    values[`p50_${plan}`] = percentile(last, counters.bounds_us ?? [], 0.5);
    values[`p99_${plan}`] = percentile(last, counters.bounds_us ?? [], 0.99);
  }
  const ofAll = PLANS.map((plan) => grown(from.counters, plan)).reduce((a, b) => a.map((count, i) => count + (b[i] ?? 0)));
  const pages = ["reads", "cache_hits"].map((name) => counters[name] - from.counters[name]);
  values.qps = all;
  values.p50 = percentile(ofAll, counters.bounds_us ?? [], 0.5);
  values.p99 = percentile(ofAll, counters.bounds_us ?? [], 0.99);
  values.reads = searches > 0 ? pages[0] / searches : null;
  values.hit = pages[0] + pages[1] > 0 ? pages[1] / (pages[0] + pages[1]) : null;
  (counters.answers ?? []).forEach((count, i) => { values[`answers_${i + 1}`] = (count - before.counters.answers[i]) / (t - before.t); });
  state.history.push({ t, values });
  while (state.history[0].t < t - KEPT_SECONDS) state.history.shift();
}

async function poll() {
  clearTimeout(timer);
  if (isAsking) return;
  isAsking = true;
  try {
    const overview = await api("GET", "/v1/overview");
    if (state.error) announce("The server answers again");
    state.overview = overview;
    state.error = null;
    note(overview);
    takeJobs(overview.jobs?.jobs ?? []);
  } catch (error) {
    if (!state.error) announce(error.message, true);
    state.error = error;
  }
  isAsking = false;
  changed();
  timer = setTimeout(poll, EVERY);
}

// ---- The overview ----

/** What needs a look, worst first. */
function warnings() {
  const all = [];
  for (const one of collections()) {
    const link = () => h("a", { href: `#/collections/${encodeURIComponent(one.name)}` }, one.name);
    const trouble = one.info?.optimizer_status?.error;
    if (trouble) all.push(["bad", [link(), ": background work failed: ", trouble]]);
    const { delta_bytes: delta, delta_allowed_bytes: allowed } = one.info?.roxanne ?? {};
    if (allowed > 0 && delta / allowed >= NEARLY_FULL) {
      all.push(["warn", [link(), `: ${percent(delta / allowed, 0)} of the delta is in use. When it is full, writes are refused. Rebuild the base to empty it.`]]);
    }
    const recall = one.standing?.canary_recall;
    if (typeof recall === "number" && recall < LOW_RECALL) {
      all.push(["warn", [link(), `: canary recall@10 is ${fixed(recall, 3)}, under ${LOW_RECALL}. Try a larger list size or a rebuild.`]]);
    }
  }
  const { disk_free_bytes: free, disk_bytes: disk } = state.overview ?? {};
  if (free < 1 << 30 || free / disk < 0.05) all.push(["bad", [`Only ${bytes(free)} of the disk are free. Under 256 MiB, puts are refused.`]]);
  return all.sort(([a], [b]) => a.localeCompare(b));
}

const memoryOf = (one) => one.memory ?? {};

function overviewPage() {
  const of = (label, key, tone, isDashed) => ({ label, key, tone, isDashed });
  const rates = timeChart("Searches a second", PLANS.map((plan) => of(plan, `qps_${plan}`, plan)), short);
  const latency = timeChart("Search latency", PLANS.flatMap((plan) => [of(`${plan} p50`, `p50_${plan}`, plan), of(`${plan} p99`, `p99_${plan}`, plan, true)]), micros,
    { note: "Of the searches of the last 10 s, read from a histogram: between its bounds it is an estimate." });
  const reads = timeChart("Pages read a query", [of("reads a query", "reads", "graph")], short);
  const answers = timeChart("Answers a second by status", [of("2xx", "answers_2", "ok"), of("4xx", "answers_4", "filtered"), of("5xx", "answers_5", "fault")], short,
    { note: "The questions of this page are among them." });
  const [top, warn, tiles, jobs, memory, list] = [h("p", { class: "muted num" }), h("div"), h("div", { class: "tiles" }), h("div"), h("div"), h("div")];
  const el = h("div", null, h("h1", { tabindex: -1 }, "Overview"), top, warn, tiles,
    h("div", { class: "grid even" }, rates.el, latency.el, reads.el, answers.el),
    h("div", { class: "grid even" }, panel("Jobs", jobs), panel("Memory and disk", memory)), panel("Collections", list));
  return {
    el, title: "Overview",
    update() {
      const { overview, history } = state;
      if (!overview) return;
      const now = history.at(-1)?.values ?? {};
      const line = (key) => spark(history.map(({ values }) => values[key]));
      const figure = (name, key, text, none) => h("div", { class: "tile", "data-key": key }, h("div", { class: "name" }, name),
        h("div", { class: `value num ${text === null ? "none" : ""}` }, text ?? none), line(key));
      const is = (key) => now[key] !== null && now[key] !== undefined;
      const worst = warnings();
      patch(top, worst.some(([tone]) => tone === "bad") ? tag("bad", "trouble") : worst.length > 0 ? tag("warn", "needs a look") : tag("good", "well"),
        ` Version ${overview.version ?? UNKNOWN} · up for ${duration(overview.uptime_seconds)} · ${int(overview.counters?.connections)} ${overview.counters?.connections === 1 ? "connection" : "connections"} · you are ${overview.caller?.name ?? UNKNOWN} (${overview.caller?.role ?? "role unknown"})`);
      patch(warn, worst.length > 0 && h("ul", { class: `box list ${worst.some(([tone]) => tone === "bad") ? "bad" : "warn"}` }, worst.map(([tone, said]) => h("li", null, said))));
      patch(tiles,
        figure("Searches a second", "qps", is("qps") ? short(now.qps) : null, "measuring"),
        figure("p50", "p50", is("p50") ? micros(now.p50) : null, "no searches"),
        figure("p99", "p99", is("p99") ? micros(now.p99) : null, "no searches"),
        figure("Reads a query", "reads", is("reads") ? short(now.reads) : null, "no searches"),
        figure("Cache hit rate", "hit", is("hit") ? percent(now.hit) : null, "no reads"),
        figure("Process memory", "rss", is("rss") ? bytes(now.rss) : bytes(overview.resident_bytes), UNKNOWN));
      [rates, latency, reads, answers].forEach((chart) => chart.update(history));
      const running = jobsOf((job) => job.state === "running");
      const past = jobsOf((job) => job.state !== "running").slice(0, running.length > 0 ? 3 : 5);
      patch(jobs, running.length === 0 && muted("No job is at work."), running.map(jobView), past.length > 0 && h("h3", null, "Ended"), past.map(jobView));
      patch(memory, memoryView(overview));
      patch(list, catalog.collectionTable());
    },
  };
}

/** Memory by kind against what is allowed, collection by collection, and the disk. */
function memoryView(overview) {
  const legend = h("div", { class: "legend" }, [["codes", "Codes"], ["cache", "Cache"], ["delta", "Delta"]].map(([tone, label]) =>
    h("span", null, h("i", { class: `swatch ${tone}` }), " ", label)), h("span", null, h("i", { class: "swatch rail" }), " Allowed and free"));
  const rows = collections().map((one) => {
    const { codes, cache, delta, allowed } = memoryOf(one);
    const used = (codes ?? 0) + (cache ?? 0) + (delta ?? 0);
    return h("div", { class: "use", "data-key": one.name },
      h("div", { class: "row" }, h("strong", null, one.name), h("span", { class: "push num muted" }, `${bytes(used)} of ${bytes(allowed)}`)),
      stack([["codes", codes], ["cache", cache], ["delta", delta]], allowed || used || 1, `Codes ${bytes(codes)}, cache ${bytes(cache)}, delta ${bytes(delta)} of ${bytes(allowed)}`),
      h("div", { class: "muted num" }, `codes ${bytes(codes)} · cache up to ${bytes(cache)} · delta ${bytes(delta)}`));
  });
  return [rows.length > 0 ? legend : muted("No collections, so no memory is set aside."), rows, diskView(overview)];
}

function diskView({ disk_bytes: disk, disk_free_bytes: free }) {
  const isKnown = typeof disk === "number" && typeof free === "number";
  return h("div", { class: "use" }, h("div", { class: "row" }, h("strong", null, "Disk of the data"), h("span", { class: "push num muted" }, isKnown ? `${bytes(free)} free of ${bytes(disk)}` : UNKNOWN)),
    isKnown && stack([["used", disk - free]], disk, `${bytes(free)} free of ${bytes(disk)}`));
}

// ---- Pages by the hash ----

const PAGES = {
  overview: overviewPage, collections: (name) => name ? catalog.onePage(name) : catalog.allPage(), query: search.consolePage, recall: search.recallPage,
  sizing: reference.sizingPage, storage: () => reference.storagePage(diskView), keys: reference.keysPage, api: reference.apiPage,
};
let page = null;

function show(event) {
  if (!state.overview && !state.error) return;
  const hash = location.hash;
  if (hash && !hash.startsWith("#/")) return;
  const [name, ...rest] = hash.slice(2).split("?")[0].split("/");
  const parameters = new URLSearchParams(hash.split("?")[1] ?? "");
  let part = "";
  try {
    part = decodeURIComponent(rest.join("/"));
  } catch {
    // No name has what cannot be read.
  }
  const make = Object.hasOwn(PAGES, name || "overview") ? PAGES[name || "overview"] : null;
  page?.leave?.();
  page = make ? make(part, parameters) : { el: h("div", null, h("h1", { tabindex: -1 }, "Not found"), muted("There is no such page.")), title: "Not found" };
  document.getElementById("page").replaceChildren(page.el);
  document.title = `${page.title} · roxanne`;
  for (const link of document.querySelectorAll("#nav a")) {
    const isThis = link.hash === `#/${name || "overview"}`;
    if (isThis) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    // On narrow screens the row of pages scrolls in its own box.
    if (isThis) link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.clientWidth / 2 + link.offsetWidth / 2;
  }
  page.update?.();
  if (event) {
    scrollTo(0, 0);
    page.el.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function frame() {
  const { overview, error } = state;
  const worst = warnings();
  const bad = error || worst.some(([tone]) => tone === "bad") ? "bad" : worst.length > 0 ? "warn" : "good";
  patch(document.getElementById("status"), overview || error ? [h("i", { class: `lamp ${bad}` }), h("span", null,
    error ? (error.status === 401 || error.status === 403 ? "Not allowed" : "No connection") : `Up ${duration(overview.uptime_seconds)}`)] : "Connecting");
  patch(document.getElementById("banner"), error && errorBox(error), error && overview && muted("What is shown below is what the server said last."));
  page?.update?.();
}

// ---- Light and dark ----

const THEMES = ["auto", "light", "dark"];
let theme = "auto";

function setTheme(name) {
  theme = THEMES.includes(name) ? name : "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

function stored(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

document.getElementById("theme").onclick = () => {
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  stored("roxanne.theme", theme);
};
document.getElementById("skip").onclick = (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
};

setTheme(stored("roxanne.theme"));
onChange(frame);
onJobEnd(poll);
state.poll = poll;
addEventListener("hashchange", show);
patch(document.getElementById("page"), h("h1", null, "Loading"));
frame();
// Pages are made of what is known, so the first comes after the first answer.
poll().then(() => show());
