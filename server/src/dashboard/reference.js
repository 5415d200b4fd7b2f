// What there is and what it would take: sizing, storage, keys, the API.

import { incoming, snapshotTable } from "./collections.js";
import {
  action, announce, api, at, begin, bytes, collections, dialog, errorBox, facts, field, form, h, int, jobsOf, jobView, fixed, muted, names, panel, patch, request, select, short,
  stack, state, table, tag, tile, time, UNKNOWN,
} from "./lib.js";

const GIB = 2 ** 30;

// ---- Sizing ----

const WIDTH = { float32: 4, float16: 2, uint8: 1, int8: 1 };

export function sizingPage() {
  const number = (value, props) => h("input", { type: "number", step: 1, inputmode: "numeric", value, ...props });
  const n = number("100000000", { min: 1, max: 1e11 });
  const slide = h("input", { type: "range", min: 4, max: 10, step: 0.05, value: "8", "aria-label": "Points, on a scale of powers of ten" });
  const dims = number("768", { min: 1, max: 8192 });
  const slideDims = h("input", { type: "range", min: 16, max: 2048, step: 16, value: "768", "aria-label": "Dimensions" });
  const type = select([["float32", "float32, 4 bytes"], ["float16", "float16, 2 bytes"], ["uint8", "uint8, 1 byte"], ["int8", "int8, 1 byte"]], "float32");
  const ram = number("64", { min: 1, max: 100000 });
  const rate = number("500000", { min: 1 });
  const out = h("div");
  const spelled = h("div", { class: "hint num" }, int(1e8));
  let timer = 0;
  let stop = null;
  const presets = [["1M", 1e6], ["100M", 1e8], ["1B", 1e9]].map(([name, value]) => h("button", { type: "button", class: "small", onclick: () => setN(value) }, name));
  const widths = [128, 384, 768, 1536].map((value) => h("button", { type: "button", class: "small", onclick: () => setDims(value) }, String(value)));
  const ask = async () => {
    stop?.abort();
    stop = new AbortController();
    const body = { n: Number(n.value), dim: Number(dims.value), datatype: type.value };
    if (ram.value) body.ram = Math.round(Number(ram.value) * GIB);
    if (!(body.n >= 1) || !(body.dim >= 1) || !(Number(rate.value) >= 1) || (ram.value && !(body.ram >= 1))) {
      out.replaceChildren(errorBox(new Error("Points, dimensions and reads a second are numbers from 1 up")));
      return;
    }
    out.setAttribute("aria-busy", "true");
    try {
      const plan = await api("POST", "/v1/plan", body, stop.signal);
      out.replaceChildren(bill(plan, body, Number(rate.value)));
      announce(`Memory to serve ${bytes(plan.serve_ram_bytes)}, disk ${bytes(plan.index_bytes)}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      out.replaceChildren(errorBox(error));
    }
    out.removeAttribute("aria-busy");
  };
  const soon = () => {
    spelled.textContent = int(Number(n.value));
    clearTimeout(timer);
    timer = setTimeout(ask, 250);
  };
  const setN = (value) => {
    n.value = value;
    slide.value = Math.log10(value);
    soon();
  };
  const setDims = (value) => {
    dims.value = value;
    slideDims.value = value;
    soon();
  };
  n.oninput = () => { slide.value = Math.log10(Number(n.value) || 1); soon(); };
  slide.oninput = () => {
    const value = 10 ** Number(slide.value);
    const step = 10 ** (Math.floor(Math.log10(value)) - 1);
    n.value = Math.round(value / step) * step;
    soon();
  };
  dims.oninput = () => { slideDims.value = dims.value; soon(); };
  slideDims.oninput = () => { dims.value = slideDims.value; soon(); };
  [type, ram, rate].forEach((input) => { input.oninput = soon; });
  ask();
  return {
    title: "Sizing",
    leave() { stop?.abort(); clearTimeout(timer); },
    el: h("div", null, h("h1", { tabindex: -1 }, "Sizing"), muted("What so many points take, to build and to serve. Figures are what the builder itself plans with."),
      h("div", { class: "console" },
        h("section", { class: "panel form" },
          field("Points", n), spelled, slide, h("div", { class: "actions" }, presets),
          field("Dimensions", dims), slideDims, h("div", { class: "actions" }, widths),
          field("Datatype", type, "Of a coordinate."), field("Memory for the build, GiB", ram, "Empty: no limit. With less, the base is built in parts on the disk."),
          field("Reads a second of the drive", rate, "Your drive's figure for random reads of 4 KiB. The server does not know it; 500,000 is common for one NVMe drive.")),
        out)),
  };
}

function bill(plan, body, rate) {
  const raw = plan.n * plan.dim * WIDTH[body.datatype];
  const times = raw / plan.serve_ram_bytes;
  const most = Math.max(raw, plan.index_bytes, plan.serve_ram_bytes);
  const line = (name, amount, tone, note) => h("div", { class: "use" }, h("div", { class: "row" }, h("strong", null, name), h("span", { class: "push num" }, bytes(amount))),
    stack([[tone, amount]], most, `${name}: ${bytes(amount)}`), note && h("div", { class: "muted" }, note));
  const device = plan.on_device;
  return h("div", null,
    !plan.fits && h("div", { class: "box bad" }, h("strong", null, "This build does not fit"), h("p", null, `It takes ${bytes(plan.peak_ram_bytes)} of memory at least, ${bytes(body.ram)} are allowed. Give it more memory.`)),
    h("div", { class: "tiles" },
      tile("Memory to serve", bytes(plan.serve_ram_bytes), `${int(plan.code_bytes)} bytes of code a point`),
      tile("Disk of the index", bytes(plan.index_bytes), `${int(plan.record_bytes)} bytes a point`),
      tile("Memory to build", bytes(plan.peak_ram_bytes), body.ram ? `of ${bytes(body.ram)} allowed` : "no limit"),
      tile("Disk to build", bytes(plan.disk_bytes), "at its peak"),
      tile("Reads a query", typeof plan.reads_per_query === "number" ? `about ${fixed(plan.reads_per_query, 0)}` : UNKNOWN, "at list size 64")),
    panel("In words",
      h("ul", { class: "list" },
        h("li", null, `${short(plan.n)} points of ${int(plan.dim)} dimensions are ${bytes(raw)} of vectors. To serve them, ${bytes(plan.serve_ram_bytes)} of memory are enough: ${times >= 1.5 ? `${fixed(times, times < 10 ? 1 : 0)} times less than to hold all vectors in memory` : "about as much as all vectors in memory, as they are small"}.`),
        h("li", null, `On the disk a point takes ${int(plan.record_bytes)} bytes, its vector and its neighbors: ${int(plan.records_per_page)} to a page of ${bytes(plan.page_bytes)}, and ${bytes(plan.index_bytes)} in all.`),
        h("li", null, plan.shards > 1 ? `The base is built in ${int(plan.shards)} parts, as it does not fit the memory at once: ${bytes(plan.read_bytes)} are read and ${bytes(plan.written_bytes)} written on the way.` : "The base is built at once, in memory."),
        plan.indexes > 1 && h("li", null, `It takes ${int(plan.indexes)} indexes, which are searched side by side.`),
        h("li", null, `A query reads about ${fixed(plan.reads_per_query, 0)} pages at list size 64. A drive of ${short(rate)} reads a second answers at most about ${int(rate / plan.reads_per_query)} queries a second; what is in the cache costs no read.`),
        device && h("li", null, `A build on a CUDA device takes ${bytes(device.least_bytes)} of its memory at least, ${bytes(device.best_bytes)} for the best speed, and ${bytes(device.peak_ram_bytes)} of the machine's.`))),
    panel("Side by side", line("All vectors in memory", raw, "exact", "what a search that keeps everything in memory would take"), line("Codes in memory", plan.serve_ram_bytes, "codes", "what is served from here"),
      line("Index on the disk", plan.index_bytes, "used")));
}

// ---- Storage ----

export function storagePage(diskView) {
  const [disk, files, copies, held, work] = Array.from({ length: 5 }, () => h("div"));
  const snapshots = new Map();
  let asked = "";
  const read = async (name) => {
    try {
      snapshots.set(name, await api("GET", `${at(name)}/snapshots`));
    } catch (error) {
      snapshots.set(name, error);
    }
    page.update();
  };
  const page = {
    title: "Storage",
    el: h("div", null, h("h1", { tabindex: -1 }, "Storage"), work, panel("Disk", disk), panel("Collections", held), panel("Incoming", muted("Files of vectors and finished indexes in DATA/incoming."), files), panel("Snapshots", copies)),
    update() {
      const { overview } = state;
      if (!overview) return;
      if (asked !== names().join("/")) {
        asked = names().join("/");
        names().forEach(read);
      }
      const size = (list) => Array.isArray(list) ? list.reduce((all, one) => all + one.size, 0) : null;
      patch(disk, diskView(overview));
      patch(held, table("Collections", [["Collection", ""], ["Points", "num"], ["On the disk", "num"], ["Memory allowed", "num"], ["Snapshots", "num"], ["Bytes of snapshots", "num"]], collections().map((one) => {
        const list = snapshots.get(one.name);
        const onDisk = one.disk_bytes ?? one.memory?.disk;
        return { key: one.name, cells: [h("a", { href: `#/collections/${encodeURIComponent(one.name)}` }, one.name), int(one.standing?.points), bytes(onDisk), bytes(one.memory?.allowed), Array.isArray(list) ? int(list.length) : UNKNOWN, bytes(size(list))] };
      }), { empty: "There are no collections yet." }));
      const running = jobsOf((job) => (job.kind === "build" || job.kind === "verify") && job.state === "running");
      const last = jobsOf((job) => (job.kind === "build" || job.kind === "verify") && job.state !== "running").slice(0, 2);
      patch(work, running.length + last.length > 0 && panel("Builds and checks", running.map(jobView), last.map(jobView)));
      const all = overview.incoming;
      patch(files, !Array.isArray(all) ? muted("What lies there is unknown: this server does not tell.") : table("Incoming", [["Name", "left"], ["Kind", ""], ["Size", "num"], ["", "end"]], all.map((one) => ({
        key: one.name,
        cells: [one.name, one.is_index ? tag("info", "index") : tag("", "file"), bytes(one.bytes), h("span", { class: "actions end" },
          one.is_index ? action("Check all bytes", async () => { await begin("/v1/verifications", { index: one.name }); }, { kind: "small" })
            : /\.(fbin|f16bin|bf16bin|u8bin|i8bin|fvecs|bvecs|npy)$/i.test(one.name) && action("Build index", async () => buildDialog(one.name), { kind: "small" }))],
      })), { empty: "Nothing lies in DATA/incoming." }));
      const lists = names().filter((name) => snapshots.has(name));
      const shown = lists.filter((name) => !Array.isArray(snapshots.get(name)) || snapshots.get(name).length > 0);
      patch(copies, shown.length === 0 ? h("p", { class: "empty" }, lists.length === names().length ? "There are no snapshots." : "Loading.") : shown.map((name) => h("div", { "data-key": name }, h("h3", null, name),
        Array.isArray(snapshots.get(name)) ? snapshotTable(name, snapshots.get(name), () => read(name), null) : errorBox(snapshots.get(name)))));
    },
  };
  return page;
}

function buildDialog(input) {
  const output = h("input", { type: "text", value: `${input.replace(/\.[^.]*$/, "")}.rx`, autocomplete: "off", spellcheck: "false" });
  const metric = select([["l2", "Euclid (l2)"], ["cos", "Cosine (cos)"], ["dot", "Dot product (dot)"], ["l1", "Manhattan (l1)"]], "l2");
  const keys = select([["", "none: ids are row numbers"], ...incoming((one) => !one.is_index && one.name !== input) ?? []]);
  const capacity = h("input", { type: "number", min: 1, step: 1 });
  const ram = h("input", { type: "text", placeholder: "such as 8G", autocomplete: "off" });
  dialog(`Build an index of ${input}`, (close) => form("Build", [
    field("Name of the index", output, "It will lie in DATA/incoming."),
    h("div", { class: "fields" }, field("Distance", metric, "The same as the collection's."), field("File of ids", keys, "One id a line.")),
    h("div", { class: "fields" }, field("Capacity", capacity, "Points that it has room for, so that it can be changed in place. Empty: none beyond its own."), field("Memory", ram, "Most that the build takes.")),
  ], async () => {
    const body = { input, output: output.value.trim(), metric: metric.value };
    if (keys.value) body.keys = keys.value;
    if (capacity.value) body.capacity = Number(capacity.value);
    if (ram.value.trim()) body.ram = ram.value.trim();
    await begin("/v1/builds", body);
    close();
  }, { role: "admin" }));
}

// ---- Keys ----

const ROLES = [["read", "Search and look."], ["write", "What read may, and put and delete points."], ["admin", "What write may, and make and remove collections, promote, roll back, snapshots, jobs."]];

export function keysPage() {
  const list = h("div");
  const you = h("div");
  const code = (text) => h("pre", { class: "code", tabindex: 0 }, text);
  return {
    title: "Keys",
    el: h("div", null, h("h1", { tabindex: -1 }, "Keys"), panel("You", you), panel("All keys", list),
      h("div", { class: "grid" },
        panel("Make and revoke keys", muted("Keys are made on the machine of the server. A key is printed once; only its hash is kept. A running server takes up changes by itself."),
          code("roxanne key create NAME --role read|write|admin [--collections a,b] --data DIR"), code("roxanne key list --data DIR"), code("roxanne key revoke NAME --data DIR")),
        panel("What roles may", facts(ROLES)))),
    update() {
      const { overview } = state;
      if (!overview) return;
      patch(you, facts([["Name", overview.caller?.name ?? UNKNOWN], ["Role", overview.caller?.role ?? UNKNOWN]]),
        overview.caller?.name === "everybody" && h("p", { class: "muted" }, "This server has no keys: every program on its machine may do all."));
      const { keys } = overview;
      patch(list, !Array.isArray(keys) ? muted("Which keys there are is unknown: this server does not tell.")
        : table("Keys", [["Name", ""], ["Role", ""], ["Collections", ""], ["Made", "num left"]], keys.map((key) => ({
          key: key.name, cells: [key.name, tag(key.role === "admin" ? "warn" : "", key.role), key.collections ? key.collections.join(", ") : "all", time(key.created)],
        })), { empty: overview.caller?.role === "admin" ? "There are no keys." : "None that you may see: this takes the role admin." }));
    },
  };
}

// ---- The API, from its own description ----

const TITLES = { v1: "Bases, jobs and figures (/v1)", collections: "Collections", points: "Points", snapshots: "Snapshots", aliases: "Aliases", service: "Service" };
const ORDER = ["collections", "points", "v1", "snapshots", "aliases", "service"];
const BODIES = {
  create_collection: { vectors: { size: 128, distance: "Cosine" } },
  upsert_points: { points: [{ id: 7, vector: [0.1, 0.2, 0.3], payload: { lang: "en" } }] },
  query_points: { query: [0.1, 0.2, 0.3], limit: 10, with_payload: true },
  query_batch: { searches: [{ query: 7, limit: 10 }] },
  search_points: { vector: [0.1, 0.2, 0.3], limit: 10 },
  search_batch: { searches: [{ vector: [0.1, 0.2, 0.3], limit: 10 }] },
  get_points: { ids: [7], with_payload: true },
  delete_points: { points: [7] },
  scroll_points: { limit: 10, with_payload: true },
  count_points: { filter: { must: [{ key: "lang", match: { value: "en" } }] } },
  set_payload: { payload: { lang: "en" }, points: [7] },
  overwrite_payload: { payload: { lang: "en" }, points: [7] },
  delete_payload: { keys: ["lang"], points: [7] },
  clear_payload: { points: [7] },
  batch_points: { operations: [{ delete: { points: [7] } }] },
  change_aliases: { actions: [{ create_alias: { alias_name: "today", collection_name: "docs" } }] },
  recover_snapshot: { location: "2026-11-27T00-00-00" },
  explain: { query: 7, limit: 10, list_size: 100 },
  promote: { index: "tuesday", sequence: 100, keep_previous: true, gate: { recall_at_10: 0.95 } },
  measure: { queries: 50, k: 10, list_sizes: [20, 80, 320] },
  import: { vectors: "docs.fbin", keys: "docs.keys" },
  build: { input: "docs.fbin", output: "tuesday", metric: "cos", keys: "docs.keys" },
  verify: { index: "tuesday" },
  plan: { n: 1000000000, dim: 128, datatype: "uint8" },
};

export function apiPage() {
  const list = h("div", { class: "column" });
  const find = h("input", { type: "search", placeholder: "such as snapshot or PUT", autocomplete: "off", spellcheck: "false" });
  const count = h("p", { class: "muted num", "aria-live": "polite" });
  const look = () => {
    const word = find.value.trim().toLowerCase();
    let shown = 0;
    for (const group of list.querySelectorAll("section")) {
      let any = false;
      for (const item of group.querySelectorAll("details.op")) {
        item.hidden = word !== "" && !item.dataset.words.includes(word);
        any ||= !item.hidden;
        shown += item.hidden ? 0 : 1;
      }
      group.hidden = !any;
    }
    count.textContent = `${shown} operations`;
  };
  find.oninput = look;
  request("GET", "/openapi.json").then((document) => {
    list.replaceChildren(...groups(document));
    look();
  }).catch((error) => list.replaceChildren(errorBox(error)));
  list.append(muted("Loading."));
  return {
    title: "API",
    el: h("div", null, h("h1", { tabindex: -1 }, "API"), h("p", { class: "muted" }, "Drawn from ", h("a", { href: "/openapi.json" }, "/openapi.json"), ", which is drawn from the routes themselves. Send a key as the header api-key or as a bearer's token."),
      h("div", { class: "fields" }, field("Find", find)), count, list),
  };
}

function groups(document) {
  const all = Object.entries(document.paths ?? {}).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })));
  const tags = [...new Set([...ORDER, ...all.flatMap(({ operation }) => operation.tags ?? [])])];
  return tags.map((name) => [name, all.filter(({ operation }) => (operation.tags ?? []).includes(name))]).filter(([, of]) => of.length > 0)
    .map(([name, of]) => h("section", { class: "panel" }, h("h2", null, TITLES[name] ?? name, " ", h("small", { class: "num" }, int(of.length))), of.map((one) => operationView(document, one))));
}

function operationView(document, { path, method, operation }) {
  const role = operation.security?.length === 0 ? "no key" : /role (\w+)/.exec(operation.description ?? "")?.[1] ?? UNKNOWN;
  const inner = h("div", { class: "inner" });
  const el = h("details", { class: "op", "data-words": `${method} ${path} ${operation.operationId} ${operation.summary ?? ""} ${role}`.toLowerCase() },
    h("summary", null, h("span", { class: `method ${method.toLowerCase()}` }, method), h("code", { class: "path" }, path), h("span", { class: "summary" }, operation.summary ?? ""), tag(role === "admin" ? "warn" : "", role)), inner);
  el.addEventListener("toggle", () => {
    if (!el.open || inner.firstChild) return;
    const content = operation.requestBody?.content ?? {};
    const schema = content["application/json"]?.schema;
    const parameters = operation.parameters ?? [];
    const [status, answer] = Object.entries(operation.responses ?? {}).find(([code]) => code.startsWith("2")) ?? [];
    const kinds = Object.keys(answer?.content ?? {});
    const result = answer?.content?.["application/json"]?.schema?.properties?.result;
    inner.append(
      parameters.length > 0 ? h("div", null, h("h3", null, "Parameters"), table(`Parameters of ${operation.operationId}`, [["Name", ""], ["In", ""], ["Type", ""], ["About", ""]], parameters.map((one) => ({
        key: one.name, cells: [h("code", null, one.name), one.in, `${typeOf(document, one.schema)}${range(one.schema)}`, one.description ?? (one.required ? "needed" : "")],
      })))) : "",
      operation.requestBody ? h("div", null, h("h3", null, "Body"), schema ? schemaView(document, schema, true) : muted(operation.requestBody.description ?? Object.keys(content).join(", "))) : "",
      h("div", null, h("h3", null, `Answer ${status ?? ""}`), result && typeof result === "object" ? [muted("In the field result of ", h("code", null, '{"result", "status", "time"}'), "."), schemaView(document, result, false)] : muted(kinds.join(", ") || UNKNOWN)),
      h("div", null, h("h3", null, "With curl"), h("pre", { class: "code", tabindex: 0 }, curl(document, method, path, operation, schema, role))));
  });
  return el;
}

const resolve = (document, schema) => {
  let of = schema;
  for (let i = 0; i < 8 && of?.$ref; i++) of = of.$ref.replace(/^#\//, "").split("/").reduce((part, name) => part?.[name], document);
  return of ?? {};
};
const refName = (schema) => schema?.$ref?.split("/").at(-1);

function typeOf(document, schema) {
  if (schema === true || !schema) return "anything";
  const of = resolve(document, schema);
  const options = of.anyOf ?? of.oneOf;
  if (of.enum) return of.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (of.const !== undefined) return JSON.stringify(of.const);
  if (options) return options.map((one) => refName(one) ?? typeOf(document, one)).join(" or ");
  if (of.type === "array") return `list of ${of.items ? refName(of.items) ?? typeOf(document, of.items) : "anything"}`;
  return [].concat(of.type ?? (of.properties ? "object" : "anything")).join(" or ");
}

const range = (schema) => {
  const { minimum: low, maximum: high } = schema ?? {};
  return high !== undefined ? `, ${low ?? "up"} to ${high}` : low !== undefined ? `, ${low} or more` : "";
};

function schemaView(document, schema, isAsked, seen = []) {
  const of = resolve(document, schema);
  const name = refName(schema);
  if (name && seen.includes(name)) return muted(`${name}, as above`);
  const inside = name ? [...seen, name] : seen;
  const options = (of.anyOf ?? of.oneOf ?? []).filter((one) => one.type !== "null");
  const parts = [];
  if (of.description) parts.push(muted(of.description));
  if (of.properties) {
    parts.push(h("ul", { class: "schema" }, Object.entries(of.properties).map(([field, part]) => {
      const target = resolve(document, part);
      const inner = target.properties || target.anyOf || target.oneOf || target.items?.$ref || target.items?.properties ? (target.items && !target.properties ? target.items : part) : null;
      const isDeep = inner && inside.length < 6 && isStructured(document, inner) && !(refName(inner) && inside.includes(refName(inner)));
      const about = (part.description ?? target.description ?? "").replace(/\s+/g, " ");
      return h("li", null, h("code", null, field), isAsked && of.required?.includes(field) && h("span", { class: "needed" }, " needed"), h("span", { class: "type" }, ` ${typeOf(document, part)}${range(target)}`), about && h("div", { class: "muted" }, about),
        isDeep && lazy(refName(inner) ?? "more", () => schemaView(document, inner, isAsked, inside)));
    })));
  } else if (options.length > 0) {
    parts.push(h("ul", { class: "schema" }, options.map((one) => h("li", null, h("span", { class: "type" }, refName(one) ?? typeOf(document, one)),
      inside.length < 6 && isStructured(document, one) && !(refName(one) && inside.includes(refName(one))) && lazy("fields", () => schemaView(document, one, isAsked, inside))))));
  } else if (of.type === "array" && of.items && isStructured(document, of.items)) {
    parts.push(h("p", { class: "type" }, typeOf(document, of)), schemaView(document, of.items, isAsked, inside));
  } else {
    parts.push(h("p", { class: "type" }, `${typeOf(document, of)}${range(of)}`));
  }
  return h("div", null, parts);
}

function isStructured(document, schema) {
  const of = resolve(document, schema);
  return Boolean(of.properties || (of.anyOf ?? of.oneOf)?.some((one) => resolve(document, one).properties) || (of.items && of.items !== true && isStructured(document, of.items)));
}

function lazy(title, make) {
  const el = h("details", { class: "more" }, h("summary", null, title));
  el.addEventListener("toggle", () => {
    if (el.open && el.children.length === 1) el.append(make());
  });
  return el;
}

function sample(document, schema, depth = 0) {
  const of = resolve(document, schema);
  const options = (of.anyOf ?? of.oneOf ?? []).filter((one) => one.type !== "null");
  if (depth > 5) return null;
  if (of.const !== undefined) return of.const;
  if (of.enum) return of.enum[0];
  if (options.length > 0) return sample(document, options[0], depth + 1);
  if (of.properties) return Object.fromEntries((of.required ?? []).map((name) => [name, sample(document, of.properties[name], depth + 1)]));
  if (of.type === "array") return of.items ? [sample(document, of.items, depth + 1)] : [];
  return { integer: of.minimum ?? 1, number: 0.5, string: "text", boolean: true }[[].concat(of.type)[0]] ?? null;
}

function curl(document, method, path, operation, schema, role) {
  const names = { collection: "docs", id: "7", job: "1", snapshot: "2026-11-27T00-00-00", field: "lang" };
  const url = location.origin + path.replace(/\{(\w+)\}/g, (_, name) => names[name] ?? name);
  const lines = [`curl ${method === "GET" ? "" : `-X ${method} `}'${url}'`];
  if (role !== "no key" && state.overview?.caller?.name !== "everybody") lines.push("-H \"api-key: $ROXANNE_KEY\"");
  if (schema) {
    const body = BODIES[operation.operationId] ?? sample(document, schema);
    lines.push("-H 'content-type: application/json'", `-d '${JSON.stringify(body)}'`);
  } else if (operation.requestBody) {
    lines.push("-H 'content-type: application/octet-stream'", "--data-binary @queries.f32", "-o hits.bin");
  }
  return lines.join(" \\\n  ");
}
