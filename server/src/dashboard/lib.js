// What all pages share: elements, figures, the API, jobs, dialogs, charts.

// ---- Elements. Data goes into text and attributes, never into markup. ----

const HANDLERS = ["onclick", "oninput", "onchange", "onsubmit", "onkeydown"];
// What the reader, or a click, has changed since.
const KEPT = ["open", "aria-busy"];
const SVG = "http://www.w3.org/2000/svg";
let lastId = 0;

function fill(el, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (HANDLERS.includes(name)) el[name] = value;
    else if (name === "value") el.value = value;
    else el.setAttribute(name, value === true ? "" : value);
  }
  el.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false).map((child) => child instanceof Node ? child : String(child)));
  return el;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const newId = () => `e${++lastId}`;

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName
  && (a.nodeType !== 1 || a.getAttribute("data-key") === b.getAttribute("data-key"));

function morph(old, next) {
  if (old.nodeType !== 1) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && !KEPT.includes(name)) old.removeAttribute(name);
  for (const { name, value } of [...next.attributes]) if (old.getAttribute(name) !== value && !KEPT.includes(name)) old.setAttribute(name, value);
  for (const name of HANDLERS) if (old[name] !== next[name]) old[name] = next[name];
  morphChildren(old, [...next.childNodes]);
}

function morphChildren(old, children) {
  let at = old.firstChild;
  for (const next of children) {
    let found = at;
    while (found && !alike(found, next)) found = next.nodeType === 1 && next.hasAttribute("data-key") ? found.nextSibling : null;
    if (!found) old.insertBefore(next, at);
    else {
      if (found !== at) old.insertBefore(found, at);
      else at = at.nextSibling;
      morph(found, next);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** Makes `children` the content of an element and keeps what is alike, with its focus. */
export function patch(el, ...children) {
  morphChildren(el, [...h("div", null, ...children).childNodes]);
}

// ---- Figures ----

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const UNKNOWN = "unknown";
const isNumber = (n) => typeof n === "number" && Number.isFinite(n);
export const int = (n) => typeof n === "bigint" ? whole.format(n) : isNumber(n) ? whole.format(n) : UNKNOWN;
export const fixed = (n, digits) => isNumber(n) ? n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : UNKNOWN;
export const percent = (n, digits = 1) => isNumber(n) ? `${fixed(n * 100, digits)}%` : UNKNOWN;

export function short(n) {
  if (!isNumber(n)) return UNKNOWN;
  if (n === 0) return "0";
  if (n < 10) return fixed(n, n < 1 ? 2 : 1);
  if (n < 10000) return int(n);
  const step = [[1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => n >= size);
  return `${fixed(n / step[0], n / step[0] < 100 && n % step[0] ? 1 : 0)} ${step[1]}`;
}

export function bytes(n) {
  if (!isNumber(n)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let value = n;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${fixed(value, unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function micros(us) {
  if (us === Infinity) return "over 1 s";
  if (!isNumber(us)) return UNKNOWN;
  if (us < 1000) return `${fixed(us, 0)} µs`;
  if (us < 1e6) return `${fixed(us / 1e3, us < 1e5 ? 1 : 0)} ms`;
  return `${fixed(us / 1e6, 1)} s`;
}

export function duration(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  if (seconds < 1) return `${fixed(seconds * 1000, 0)} ms`;
  if (seconds < 10) return `${fixed(seconds, 1)} s`;
  if (seconds < 90) return `${fixed(seconds, 0)} s`;
  const [minutes, hours, days] = [seconds / 60, seconds / 3600, seconds / 86400].map(Math.floor);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

export const time = (utc) => typeof utc === "string" ? `${utc.replace("T", " ").slice(0, 16)} UTC` : UNKNOWN;

// ---- The API ----

/** Why a request was not done. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.status?.error ?? (status ? `the server answered ${status}` : "the server does not answer"));
    Object.assign(this, { status, code: body?.code, field: body?.field, requestId: body?.request_id });
  }
}

// Ids and batches may be larger than a double holds.
const large = (_, value, context) =>
  typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
const parse = (text) => /[[:,]\s*\d{16,}\s*[,}\]]/.test(text) ? JSON.parse(text, large) : JSON.parse(text);
export const stringify = (value, space) =>
  JSON.stringify(value, (_, part) => typeof part === "bigint" ? (JSON.rawJSON ? JSON.rawJSON(String(part)) : String(part)) : part, space);

export async function request(method, path, body, signal) {
  const options = { method, signal, headers: body === undefined ? {} : { "content-type": "application/json" } };
  if (body !== undefined) options.body = typeof body === "string" ? body : stringify(body);
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0);
  }
  const text = await answer.text();
  let value = null;
  try {
    value = parse(text);
  } catch {
    // What is no JSON is told by its status.
  }
  if (!answer.ok) throw new ApiError(answer.status, value);
  return value;
}

/** The result in the envelope. */
export const api = async (method, path, body, signal) => (await request(method, path, body, signal))?.result;
export const at = (name) => `/collections/${encodeURIComponent(name)}`;
export const v1 = (name) => `/v1${at(name)}`;

/** What went wrong, for people. */
export function errorBox(error) {
  const said = {
    0: "No connection", 401: "A key is needed", 403: "Not allowed", 404: "Not found", 409: "Not now", 413: "Too large",
    429: "Too busy", 501: "Not there", 503: "Not available", 504: "Took too long", 507: "The disk is full",
  };
  const title = error instanceof ApiError ? said[error.status] ?? (error.status >= 500 ? "The server failed" : "Not accepted") : error instanceof TypeError || error instanceof ReferenceError ? "Something is wrong in this page" : "Not sent";
  const facts = [
    error.status ? `status ${error.status}` : null, error.code ? `code ${error.code}` : null,
    error.field ? `field ${error.field}` : null, error.requestId ? `request_id ${error.requestId}` : null,
  ].filter(Boolean);
  const hint = error.status === 401 ? "Load the page again and give a key as the password; any user name will do."
    : error.status === 403 ? "Ask for a key with a role or collections that allow it." : null;
  return h("div", { class: "box bad", role: "alert" }, h("strong", null, title), h("p", null, error.message.replace(/\.?$/, ".")), hint && h("p", null, hint),
    facts.length > 0 && h("p", { class: "facts" }, facts.join(" · ")));
}

// ---- Words to the reader ----

export function announce(text, isBad) {
  const region = document.getElementById(isBad ? "alert" : "live");
  region.textContent = "";
  setTimeout(() => { region.textContent = text; }, 50);
}

export function toast(text, isBad) {
  announce(text, isBad);
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close this message" }, "×");
  const el = h("div", { class: `toast ${isBad ? "bad" : "good"}` }, h("span", null, text), close);
  close.onclick = () => el.remove();
  document.getElementById("toasts").append(el);
  setTimeout(() => el.remove(), isBad ? 15000 : 6000);
}

// ---- What is known of the server ----

export const state = { overview: null, error: null, history: [], jobs: new Map() };
const listeners = new Set();
let isDue = false;

/** Calls back when anything is known anew. */
export function onChange(callback) {
  listeners.add(callback);
}

export function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    listeners.forEach((callback) => callback());
  });
}

export const collections = () => state.overview?.collections ?? [];
export const collection = (name) => collections().find((one) => one.name === name);
export const names = () => collections().map((one) => one.name);
export const distance = (one) => one?.info?.config?.params?.vectors?.distance;
export const dim = (one) => one?.info?.config?.params?.vectors?.size;

const RANK = { read: 0, write: 1, admin: 2 };
/** Why the caller may not; nothing where it may, or where that is unknown. */
export function mayNot(role) {
  const has = state.overview?.caller?.role;
  return has && RANK[has] < RANK[role] ? `Your key has the role ${has}; this takes ${role}.` : null;
}

// ---- Jobs: followed by events, as a browser has few connections no more than three at once ----

const MOST_SOURCES = 3;
const sources = new Map();
const waiters = new Map();
const pace = new Map();
let isFirst = true;
let pollSoon = () => {};
export const onJobEnd = (callback) => { pollSoon = callback; };

export function jobTitle(job) {
  const of = { promote: "Promotion", rollback: "Rollback", rebuild: "Rebuild", snapshot: "Snapshot", measure: "Measurement", build: "Build", verify: "Check", import: "Import" };
  return `${of[job.kind] ?? job.kind} of ${job.collection ?? job.output ?? job.index ?? job.input ?? UNKNOWN}`;
}

/** Takes note of a job. */
export function track(job) {
  const before = state.jobs.get(job.id);
  if (before && before.state !== "running" && job.state === "running") return;
  state.jobs.set(job.id, job);
  if (job.state === "running") {
    const { phase, done } = job.progress ?? {};
    if (phase !== undefined && pace.get(job.id)?.phase !== phase) pace.set(job.id, { phase, done, since: performance.now() });
    follow(job.id);
  } else {
    sources.get(job.id)?.close();
    sources.delete(job.id);
    if (before?.state === "running" || (!before && waiters.has(job.id))) {
      const why = job.state === "failed" ? `: ${job.error}` : job.state === "done" ? ` in ${duration(job.seconds)}` : "";
      toast(`${jobTitle(job)} ${job.state === "done" ? "is done" : job.state}${why}`, job.state === "failed");
      pollSoon();
    }
    waiters.get(job.id)?.forEach((resolve) => resolve(job));
    waiters.delete(job.id);
  }
  changed();
}

function follow(id) {
  if (sources.has(id) || sources.size >= MOST_SOURCES) return;
  const source = new EventSource(`/v1/jobs/${id}/events`);
  sources.set(id, source);
  source.addEventListener("job", (event) => track(parse(event.data)));
  // Where it breaks off, the overview goes on telling.
  source.onerror = () => {
    source.close();
    sources.delete(id);
  };
}

/** The job when it has ended. */
export function ended(id) {
  const job = state.jobs.get(id);
  if (job && job.state !== "running") return Promise.resolve(job);
  return new Promise((resolve) => waiters.set(id, [...waiters.get(id) ?? [], resolve]));
}

/** Begins a job and follows it. */
export async function begin(path, body) {
  const job = await api("POST", path, body);
  waiters.set(job.id, waiters.get(job.id) ?? []);
  announce(`${jobTitle(job)} has begun`);
  track(job);
  return job;
}

export function takeJobs(jobs) {
  const there = new Set(jobs.map((job) => job.id));
  for (const id of [...state.jobs.keys()]) if (!there.has(id) && state.jobs.get(id).state !== "running") state.jobs.delete(id);
  if (isFirst) jobs.filter((job) => job.state !== "running").forEach((job) => state.jobs.set(job.id, job));
  isFirst = false;
  jobs.forEach(track);
}

export const jobsOf = (which) => [...state.jobs.values()].filter(which).sort((a, b) => b.id - a.id);

function left(job) {
  const { done, total, phase, eta_seconds: told } = job.progress ?? {};
  if (isNumber(told)) return told;
  const from = pace.get(job.id);
  if (!from || from.phase !== phase || !(done > from.done) || !(total > 0)) return null;
  return (performance.now() - from.since) / 1000 / (done - from.done) * (total - done);
}

/** What a job was asked and what it found, in few words. */
function told({ index, sequence, vectors, output, input, result }) {
  return [
    index && `index ${index}`, sequence !== undefined && `batch ${int(sequence)}`, vectors && `from ${vectors}`, output && `${output} of ${input}`,
    result?.rows !== undefined && `${int(result.rows)} rows`, isNumber(result?.recall_at_10) && `recall@10 ${fixed(result.recall_at_10, 3)}`, result?.name && `snapshot ${result.name}`,
    result?.points?.length > 0 && `${int(result.points.length)} list sizes`,
  ].filter(Boolean);
}

/** A job: what it is at, how far, how long yet. */
export function jobView(job) {
  const isRunning = job.state === "running";
  const { phase, done = 0, total = 0, unit = "" } = job.progress ?? {};
  // A phase that has told nothing yet may never do.
  const part = total > 0 && done > 0 ? Math.min(1, done / total) : null;
  const eta = isRunning ? left(job) : null;
  const tone = { running: "info", done: "good", failed: "bad", cancelled: "warn" }[job.state];
  const cancel = async () => {
    try {
      await api("DELETE", `/v1/jobs/${job.id}`);
      announce("The job was asked to stop");
    } catch (error) {
      toast(error.message, true);
    }
  };
  return h("div", { class: "job", "data-key": `job-${job.id}` },
    h("div", { class: "row" },
      h("strong", null, jobTitle(job)), h("span", { class: `tag ${tone}` }, job.state), h("span", { class: "muted num" }, `job ${job.id}`),
      h("span", { class: "push muted num" }, isRunning ? duration(job.seconds) : `took ${duration(job.seconds)}`),
      isRunning && h("button", { type: "button", class: "small", "aria-label": `Cancel ${jobTitle(job)}`, disabled: Boolean(mayNot("admin")), title: mayNot("admin"), onclick: cancel }, "Cancel")),
    isRunning && h("div", { class: "row" },
      meter(part, "info", part === null ? `${jobTitle(job)}, how far is unknown` : `${jobTitle(job)}, ${percent(part, 0)}`),
      h("span", { class: "num muted nowrap" }, part === null ? "" : percent(part, 0))),
    isRunning && h("div", { class: "muted num" }, phase ? `Phase ${phase}` : "Starting", total > 0 ? done > 0 ? ` · ${int(done)} of ${int(total)} ${unit}` : ` · ${int(total)} ${unit}, how far is unknown` : "",
      ` · time left ${eta === null ? UNKNOWN : `about ${duration(eta)}`}`),
    !isRunning && h("div", { class: "muted num" }, `Begun ${time(job.begun)}`, told(job).map((part) => ` · ${part}`)),
    job.error && h("div", { class: job.state === "failed" ? "said bad" : "said" }, job.error),
    job.attempts > 1 && h("div", { class: "muted" }, `Begun ${job.attempts} times: the server ended meanwhile.`));
}

/** A bar; `part` is 0 to 1, or null where it is unknown. */
export function meter(part, tone = "info", label = "") {
  const props = { class: `meter ${tone} ${part === null ? "busy" : ""}`, role: "img", "aria-label": label, width: "100%", height: 6 };
  return s("svg", props, s("rect", { class: "rail", width: "100%", height: 6, rx: 3 }),
    s("rect", { class: "part", width: part === null ? "30%" : `${(Math.max(0, Math.min(1, part)) * 100).toFixed(2)}%`, height: 6, rx: 3 }));
}

/** A bar of parts of a whole: [tone, amount]. */
export function stack(parts, total, label) {
  let x = 0;
  const shown = parts.filter(([, amount]) => amount > 0).map(([tone, amount]) => {
    const width = Math.min(100, amount / total * 100);
    const rect = s("rect", { class: tone, x: `${x.toFixed(3)}%`, width: `${Math.max(width, 0.4).toFixed(3)}%`, height: 10 });
    x += width;
    return rect;
  });
  return s("svg", { class: "stack", role: "img", "aria-label": label, width: "100%", height: 10 }, s("rect", { class: "rail", width: "100%", height: 10 }), shown);
}

// ---- Parts of pages ----

export const panel = (title, ...children) => h("section", { class: "panel" }, title && h("h2", null, title), ...children);
export const muted = (...text) => h("p", { class: "muted" }, ...text);
export const tag = (tone, text) => h("span", { class: `tag ${tone}` }, text);
export const facts = (pairs) => h("dl", { class: "pairs" }, pairs.filter(Boolean).map(([name, value, note]) =>
  h("div", null, h("dt", null, name), h("dd", { class: "num" }, value, note && h("small", null, note)))));
export const tile = (name, value, note) => h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value num" }, value), h("div", { class: "note num" }, note ?? ""));

/** A table; `columns` are [title, kind], kind "num" for figures. On narrow screens rows become cards, or it scrolls in its box. */
export function table(caption, columns, rows, { isCards = true, empty = "None." } = {}) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const cell = (part, i) => h("td", { class: columns[i][1], "data-label": columns[i][0] }, part);
  const body = rows.map(({ key, cells, kind }) => h("tr", { "data-key": key, class: kind }, cells.map(cell)));
  const head = h("tr", null, columns.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title || h("span", { class: "sr" }, "Actions"))));
  const made = h("table", { class: isCards ? "cards" : "" }, h("caption", { class: "sr" }, caption), h("thead", null, head), h("tbody", null, body));
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: isCards ? null : 0 }, made);
}

/** A labelled control. */
export function field(label, control, hint) {
  const id = control.id || newId();
  control.id = id;
  const hintId = hint ? newId() : null;
  if (hintId) control.setAttribute("aria-describedby", hintId);
  return h("div", { class: "field" }, h("label", { for: id }, label), control, hint && h("div", { class: "hint", id: hintId }, hint));
}

export function check(label, isChecked, hint) {
  const input = h("input", { type: "checkbox", id: newId() });
  input.checked = isChecked;
  return { input, el: h("div", { class: "field check" }, h("label", { for: input.id }, input, " ", label), hint && h("div", { class: "hint" }, hint)) };
}

export function select(options, value, onchange) {
  const el = h("select", { onchange });
  setOptions(el, options, value);
  return el;
}

/** Options as [value, text] or texts; keeps what is chosen. */
export function setOptions(el, options, value = el.value) {
  const all = options.map((one) => Array.isArray(one) ? one : [one, one]);
  const said = JSON.stringify(all);
  if (el.dataset.said !== said) {
    el.dataset.said = said;
    el.replaceChildren(...all.map(([of, text]) => h("option", { value: of }, text)));
  }
  if (all.some(([of]) => String(of) === String(value))) el.value = value;
}

/** A form that tells how it went. */
export function form(submit, fields, run, { kind = "primary", role } = {}) {
  const told = h("div");
  const button = h("button", { type: "submit", class: kind }, submit);
  const el = h("form", { class: "form", novalidate: true }, ...fields, told, h("div", { class: "actions" }, button));
  el.onsubmit = async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    told.replaceChildren();
    try {
      const said = await run();
      if (said) toast(said);
    } catch (error) {
      told.replaceChildren(errorBox(error));
    } finally {
      button.removeAttribute("aria-busy");
    }
  };
  el.allow = () => {
    const not = role ? mayNot(role) : null;
    button.disabled = Boolean(not);
    button.title = not ?? "";
  };
  el.allow();
  return el;
}

/** A button that does something and says where that failed. */
export function action(label, run, { kind = "", role = "admin", disabled = null, key } = {}) {
  const why = mayNot(role) ?? disabled;
  const onclick = async (event) => {
    const button = event.currentTarget;
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    try {
      const said = await run();
      if (said) toast(said);
    } catch (error) {
      toast(`${error.message}${error.requestId ? ` (request_id ${error.requestId})` : ""}`, true);
    } finally {
      button.removeAttribute("aria-busy");
    }
  };
  return h("button", { type: "button", class: kind, disabled: Boolean(why), title: why, "data-key": key, onclick }, label);
}

/** A dialog with anything in it; `close` is given to what makes it. The browser brings focus back. */
export function dialog(title, make) {
  const id = newId();
  const el = h("dialog", { "aria-labelledby": id });
  const close = () => el.close();
  const x = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "×");
  el.append(h("div", { class: "row" }, h("h2", { id }, title), h("span", { class: "push" }), x), make(close));
  el.addEventListener("close", () => el.remove());
  document.body.append(el);
  el.showModal();
  (el.querySelector("[autofocus], input, select, textarea") ?? x).focus();
  return el;
}

/** Asks; true when it was confirmed. With `name` it must be typed. */
export function confirm({ title, text, confirm: label, kind = "danger", name }) {
  return new Promise((resolve) => {
    let isSure = false;
    const el = dialog(title, (close) => {
      const typed = name ? h("input", { type: "text", autocomplete: "off", spellcheck: "false" }) : null;
      const yes = h("button", { type: "submit", class: kind, disabled: Boolean(name) }, label);
      if (typed) typed.oninput = () => { yes.disabled = typed.value !== name; };
      const made = h("form", { class: "form" }, [].concat(text).map((line) => h("p", null, line)), typed && field(`Type ${name} to confirm`, typed),
        h("div", { class: "actions" }, yes, h("button", { type: "button", onclick: close, autofocus: !name }, "Cancel")));
      made.onsubmit = (event) => {
        event.preventDefault();
        if (name && typed.value !== name) return;
        isSure = true;
        close();
      };
      return made;
    });
    el.addEventListener("close", () => resolve(isSure));
  });
}

// ---- Charts ----

function nice(most) {
  if (!(most > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * size).find((step) => step >= most * 0.999);
}

const path = (points) => {
  let isOn = false;
  return points.map((point) => {
    if (!point) {
      isOn = false;
      return "";
    }
    const said = `${isOn ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    isOn = true;
    return said;
  }).join("");
};

/** A small line of what was; the last is the newest. */
export function spark(values) {
  const most = Math.max(30, values.length);
  const known = values.filter(isNumber);
  const top = Math.max(...known, 1e-9);
  const point = (value, i) => isNumber(value) ? [100 - (values.length - 1 - i) / (most - 1) * 100, 22 - value / top * 20] : null;
  return s("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { d: path(values.map(point)), "vector-effect": "non-scaling-stroke" }));
}

/**
 * Lines over the last minutes. `series` are {key, label, tone, isDashed}; `update` takes [{t, values: {key: number or null}}], t in seconds.
 */
export function timeChart(title, series, format, { note } = {}) {
  const [left, right, top, bottom, height] = [46, 8, 8, 20, 168];
  const svg = s("svg", { class: "chart", height, role: "img", width: "100%" });
  const legend = h("div", { class: "legend" });
  const el = h("section", { class: "panel" }, h("h2", null, title), legend, svg, note && h("p", { class: "hint" }, note));
  let shown = [];
  let hover = null;
  const draw = () => {
    const width = Math.max(240, svg.clientWidth || 480);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const end = shown.at(-1)?.t ?? 0;
    // At first there is less than five minutes to show.
    const seconds = [60, 120, 300].find((span) => end - (shown[0]?.t ?? 0) <= span) ?? 300;
    const labels = seconds === 60 ? [60, 40, 20, 0] : seconds === 120 ? [120, 60, 0] : width < 400 ? [300, 180, 60, 0] : [300, 240, 180, 120, 60, 0];
    const x = (t) => left + (1 - (end - t) / seconds) * (width - left - right);
    const all = shown.flatMap((one) => series.map(({ key }) => one.values[key]));
    const most = nice(Math.max(0, ...all.filter(isNumber)));
    const y = (value) => top + (1 - value / most) * (height - top - bottom);
    const place = hover === null ? -1 : shown.reduce((best, one, i) => Math.abs(x(one.t) - hover) < Math.abs(x(shown[best]?.t ?? -1e9) - hover) ? i : best, -1);
    const point = shown[place] ?? shown.at(-1);
    patch(svg,
      [0, 0.5, 1].map((part) => [
        s("line", { class: "grid", x1: left, x2: width - right, y1: y(part * most), y2: y(part * most) }),
        s("text", { class: "axis", x: left - 6, y: y(part * most) + 4, "text-anchor": "end" }, format(part * most)),
      ]),
      labels.map((ago) => s("text", { class: "axis", x: x(end - ago), y: height - 4, "text-anchor": ago === seconds ? "start" : ago === 0 ? "end" : "middle" },
        ago === 0 ? "now" : seconds === 60 ? `-${ago} s` : `-${ago / 60} min`)),
      series.map(({ key, tone, isDashed }) => s("path", {
        class: `line ${tone}`, "stroke-dasharray": isDashed ? "3 3" : null,
        d: path(shown.map((one) => isNumber(one.values[key]) ? [x(one.t), y(one.values[key])] : null)),
      })),
      place >= 0 && s("line", { class: "cross", x1: x(point.t), x2: x(point.t), y1: top, y2: height - bottom }),
      place >= 0 && series.map(({ key, tone }) => isNumber(point.values[key]) && s("circle", { class: `dot ${tone}`, cx: x(point.t), cy: y(point.values[key]), r: 3 })));
    const value = (key) => point && (isNumber(point.values[key]) || point.values[key] === Infinity) ? format(point.values[key]) : "none";
    patch(legend, series.map(({ key, label, tone, isDashed }) => h("span", null, s("svg", { width: 14, height: 8, "aria-hidden": "true" },
      s("line", { class: `line ${tone}`, x1: 0, x2: 14, y1: 4, y2: 4, "stroke-dasharray": isDashed ? "3 3" : null })), ` ${label} `, h("b", { class: "num" }, value(key)))),
    h("span", { class: "push muted num" }, place >= 0 ? `${duration(end - point.t)} ago` : ""));
    svg.setAttribute("aria-label", `${title}, now: ${series.map(({ key, label }) => `${label} ${value(key)}`).join(", ")}`);
  };
  svg.addEventListener("pointermove", (event) => {
    hover = event.clientX - svg.getBoundingClientRect().left;
    draw();
  });
  svg.addEventListener("pointerleave", () => {
    hover = null;
    draw();
  });
  new ResizeObserver(draw).observe(svg);
  return { el, update(points) { shown = points; draw(); } };
}

/** Curves of points: `curves` are {label, tone, points: [{x, y, text}]}. */
export function curveChart(xTitle, yTitle, curves, formatX, formatY) {
  const [left, right, top, bottom, height] = [52, 16, 12, 40, 300];
  const svg = s("svg", { class: "chart", height, width: "100%", role: "group", "aria-label": `${yTitle} against ${xTitle}` });
  const tip = h("div", { class: "tip num", "aria-live": "polite" }, "Point at a dot, or go to it by Tab, to read it.");
  const all = curves.flatMap((curve) => curve.points);
  const draw = () => {
    const width = Math.max(260, svg.clientWidth || 480);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const mostX = nice(Math.max(...all.map((point) => point.x)));
    const least = Math.min(...all.map((point) => point.y));
    const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((size) => size * 5 >= 1 - least) ?? 0.2;
    const low = Math.max(0, 1 - step * Math.max(2, Math.ceil((1 - least) / step - 1e-9)));
    const levels = Array.from({ length: Math.round((1 - low) / step) + 1 }, (_, i) => low + i * step);
    const x = (value) => left + value / mostX * (width - left - right);
    const y = (value) => top + (1 - (value - low) / (1 - low || 1)) * (height - top - bottom);
    const parts = [0, 0.25, 0.5, 0.75, 1];
    patch(svg,
      levels.map((level) => [
        s("line", { class: "grid", x1: left, x2: width - right, y1: y(level), y2: y(level) }),
        s("text", { class: "axis", x: left - 6, y: y(level) + 4, "text-anchor": "end" }, formatY(level)),
      ]),
      parts.map((part) => [
        s("text", { class: "axis", x: x(part * mostX), y: height - 22, "text-anchor": part === 1 ? "end" : part === 0 ? "start" : "middle" }, formatX(part * mostX)),
      ]),
      s("text", { class: "axis", x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xTitle),
      curves.map(({ tone, points, isDashed }) => s("path", { class: `line ${tone}`, "stroke-dasharray": isDashed ? "4 4" : null, d: path(points.map((point) => [x(point.x), y(point.y)])) })),
      curves.map(({ tone, points }) => points.map((point) => s("circle", { class: `dot big ${tone}`, cx: x(point.x), cy: y(point.y), r: 4.5, tabindex: 0, role: "img", "aria-label": point.text }))));
  };
  const tell = (event) => {
    const said = event.target.getAttribute?.("aria-label");
    if (event.target.nodeName === "circle" && said) tip.textContent = said;
  };
  svg.addEventListener("pointerover", tell);
  svg.addEventListener("focusin", tell);
  new ResizeObserver(draw).observe(svg);
  return h("div", null, h("h3", null, `${yTitle} against ${xTitle}`), svg, tip);
}
