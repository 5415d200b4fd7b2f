// The query console, and recall against speed.

import {
  api, at, begin, collection, curveChart, dim, distance, ended, errorBox, fixed, form, field, h, int, jobsOf, jobView, micros, muted, names, panel, patch,
  select, setOptions, short, stringify, table, tag, tile, time, UNKNOWN, v1,
} from "./lib.js";

const WAYS = {
  flash: "The graph was walked by the codes in memory, and pages were read from the disk as they were wanted.",
  resident: "All pages are in memory: the graph was walked by exact distances.",
  adjacency: "Neighbors are in memory: the graph was walked by codes without reading, then the best candidates were read.",
  scan: "The filter left so few points that all of them were ranked by their codes, and the best read.",
};
const PLAN_WORDS = { graph: "through the graph, no filter", filtered: "through the graph or over what passes the filter, whichever is less", exact: "over all points" };
const EXAMPLES = [
  ["A value", { must: [{ key: "kind", match: { value: "painting" } }] }],
  ["One of several", { must: [{ key: "kind", match: { any: ["painting", "drawing"] } }] }],
  ["A range", { must: [{ key: "x", range: { gte: 10, lt: 200 } }] }],
  ["All but", { must_not: [{ key: "kind", match: { value: "texture" } }] }],
];

const scoreName = (one) => ["Cosine", "Dot"].includes(distance(one)) ? "Similarity" : "Distance";
const score = (value) => typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 7 }) : UNKNOWN;
// A whole number as the server shows it is one; all else is a text.
const idOf = (text) => !/^(0|[1-9]\d*)$/.test(text) ? text : Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);

/** The id of some point: the first behind a random place in the order of ids, which are ordered as texts. */
async function randomId(name) {
  const page = (offset, limit = 1) => api("POST", `${at(name)}/points/scroll`, { limit, with_payload: false, ...offset === null ? {} : { offset } });
  const first = (await page(null, 64)).points;
  if (first.length === 0) throw new Error(`${name} has no points`);
  const digits = (count, base) => Array.from({ length: count }, () => Math.floor(Math.random() * base).toString(base)).join("");
  const isNumber = typeof first[0].id !== "string";
  const points = collection(name)?.standing?.points ?? 64;
  const from = isNumber ? Math.floor(Math.random() * points) : /^[0-9a-f]{8}-/.test(first[0].id) ? `${digits(8, 16)}-${digits(4, 16)}-${digits(4, 16)}-${digits(4, 16)}-${digits(12, 16)}` : null;
  const found = from === null ? [] : (await page(from)).points;
  return (found[0] ?? first[Math.floor(Math.random() * first.length)]).id;
}

// ---- The console ----

export function consolePage(_, parameters) {
  const of = select(names(), parameters.get("collection"));
  const wanted = parameters.get("collection");
  const id = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "such as 17 or a UUID" });
  const vector = h("textarea", { rows: 4, spellcheck: "false", placeholder: "[0.1, 0.2, ...]" });
  const limit = h("input", { type: "number", min: 1, max: 10000, step: 1, value: "10" });
  const listSize = h("input", { type: "number", min: 1, max: 1048576, step: 1, value: "100" });
  const filter = h("textarea", { rows: 3, spellcheck: "false", placeholder: '{"must": [{"key": "lang", "match": {"value": "en"}}]}' });
  const [byId, byVector] = [["id", "A point's id"], ["vector", "A vector"]].map(([value, label], i) => {
    const input = h("input", { type: "radio", name: "by", value, onchange: () => choose() });
    input.checked = i === 0;
    return { input, el: h("label", null, input, " ", label) };
  });
  const random = h("button", { type: "button" }, "Random point");
  const idField = field("Point's id", h("span", { class: "join" }, id, random));
  idField.querySelector("label").htmlFor = id.id = "console-id";
  const vectorField = field("Vector", vector, "A JSON list of as many numbers as the collection has dimensions.");
  const choose = () => {
    idField.hidden = !byId.input.checked;
    vectorField.hidden = byId.input.checked;
  };
  const answer = h("div", { "aria-live": "off" });
  const examples = h("div", { class: "actions" }, EXAMPLES.map(([name, value]) => h("button", { type: "button", class: "small", onclick: () => { filter.value = JSON.stringify(value, null, 1); } }, name)),
    h("button", { type: "button", class: "small", onclick: () => { filter.value = ""; } }, "No filter"));

  const ask = async () => {
    if (!of.value) throw new Error("There is no collection to search");
    const body = { limit: Number(limit.value), list_size: Number(listSize.value) };
    if (byId.input.checked) {
      if (!id.value.trim()) throw new Error("Give a point's id, or take a random point");
      body.query = idOf(id.value.trim());
    } else {
      try {
        body.query = JSON.parse(vector.value);
      } catch (error) {
        throw new Error(`The vector is no JSON: ${error.message}`);
      }
      if (!Array.isArray(body.query)) throw new Error("The vector must be a JSON list of numbers");
      const wants = dim(collection(of.value));
      if (wants && body.query.length !== wants) throw new Error(`The vector has ${body.query.length} numbers; ${of.value} has ${wants} dimensions`);
    }
    if (filter.value.trim()) {
      try {
        body.filter = JSON.parse(filter.value);
      } catch (error) {
        throw new Error(`The filter is no JSON: ${error.message}`);
      }
    }
    answer.setAttribute("aria-busy", "true");
    try {
      const said = await api("POST", `${v1(of.value)}/explain`, body);
      answer.replaceChildren(explained(of.value, body, said));
    } catch (error) {
      answer.replaceChildren();
      throw error;
    } finally {
      answer.removeAttribute("aria-busy");
    }
  };
  const made = form("Search", [
    field("Collection", of),
    h("fieldset", { class: "choice" }, h("legend", null, "Look for what is near to"), byId.el, byVector.el),
    idField, vectorField,
    h("div", { class: "fields" }, field("Limit", limit, "Hits wanted, k."), field("List size", listSize, "Candidates kept while searching. More finds more and reads more.")),
    h("details", null, h("summary", null, "Filter"), field("Filter, JSON", filter), examples),
  ], ask);
  random.onclick = async () => {
    random.setAttribute("aria-busy", "true");
    try {
      id.value = String(await randomId(of.value));
      made.requestSubmit();
    } catch (error) {
      answer.replaceChildren(errorBox(error));
    }
    random.removeAttribute("aria-busy");
  };
  choose();
  return {
    title: "Query",
    el: h("div", null, h("h1", { tabindex: -1 }, "Query"), h("div", { class: "console" }, panel(null, made), answer)),
    update() {
      const isNew = of.options.length === 0;
      setOptions(of, names(), isNew ? wanted : of.value);
      if (!answer.firstChild) answer.replaceChildren(panel(null, names().length > 0 ? muted("Ask for what is near to a point or a vector. The answer stands beside an exact search, with what it took.") : muted("There is no collection to search yet. ", h("a", { href: "#/collections" }, "Create one"), ".")));
    },
  };
}

function explained(name, body, said) {
  const one = collection(name);
  const key = (hit) => String(hit.id);
  const [found, exact] = [new Set(said.hits.map(key)), new Set(said.exact.map(key))];
  const farthest = said.exact.at(-1)?.score;
  const missed = said.exact.filter((hit) => !found.has(key(hit)));
  // Of points as far as the last exact hit any is as good as another.
  const isTie = (hit) => hit.score === farthest;
  const reallyMissed = missed.filter((hit) => !isTie(hit)).length;
  const k = said.exact.length;
  const ratio = said.micros > 0 ? said.exact_micros / said.micros : null;
  const against = ratio === null ? "" : ratio >= 1.05 ? `${fixed(ratio, 1)} times faster than exact` : ratio <= 0.95 ? `${fixed(1 / ratio, 1)} times slower than exact` : "as fast as exact";
  const pages = said.reads + said.cache_hits;
  const words = [
    `Plan ${said.plan}: ${PLAN_WORDS[said.plan] ?? ""}. Way ${said.way}: ${WAYS[said.way] ?? ""}`,
    `It expanded ${int(said.expanded)} points, which is to look at their neighbors, and computed ${int(said.distances)} distances, on codes and on vectors.`,
    pages > 0 ? `It needed ${int(pages)} pages: ${int(said.reads)} were read from the disk, ${int(said.cache_hits)} were in the cache.` : "It read no page.",
    `It took ${micros(said.micros)}; the exact search over ${body.filter ? "all points that pass the filter" : `all ${int(one?.standing?.points)} points`} took ${micros(said.exact_micros)}.`,
    said.fewer ? `There are fewer hits than wanted: ${said.fewer}.` : null,
  ].filter(Boolean);
  const payloads = new Map();
  const [left, right, told] = [h("div"), h("div"), h("p", { class: "muted" })];
  const draw = () => {
    const rows = (hits, isExact) => hits.map((hit, i) => {
      const other = isExact ? found : exact;
      const isLacking = !other.has(key(hit));
      const mark = !isLacking ? null : isTie(hit) ? tag("", "as far as the last") : isExact ? tag("bad", "missed") : tag("warn", "not in exact");
      const payload = payloads.get(key(hit));
      return {
        key: key(hit), kind: isLacking && !isTie(hit) ? (isExact ? "is-missed" : "is-extra") : null,
        cells: [int(i + 1), h("span", null, h("code", null, key(hit)), " ", mark, payload !== undefined && h("pre", { class: "payload" }, payload)), score(hit.score)],
      };
    });
    const columns = [["#", "num rank"], ["Id", ""], [scoreName(one), "num"]];
    patch(left, table("Hits of the search", columns, rows(said.hits, false), { isCards: false, empty: "No hits." }));
    patch(right, table("Hits of the exact search", columns, rows(said.exact, true), { isCards: false, empty: "No hits." }));
  };
  const show = h("button", { type: "button" }, "Show payloads");
  show.onclick = async () => {
    show.setAttribute("aria-busy", "true");
    try {
      const ids = [...new Map([...said.hits, ...said.exact].map((hit) => [key(hit), hit.id])).values()];
      const points = await api("POST", `${at(name)}/points`, { ids, with_payload: true, with_vector: false });
      points.forEach((point) => payloads.set(key(point), stringify(point.payload)));
      told.textContent = points.every((point) => Object.keys(point.payload ?? {}).length === 0) ? "These points have no payload." : "";
      show.hidden = true;
      bar.hidden = told.textContent === "";
      draw();
    } catch (error) {
      told.replaceChildren(errorBox(error));
    }
    show.removeAttribute("aria-busy");
  };
  draw();
  const bar = h("div", { class: "actions" }, show, told);
  const recall = said.recall;
  return h("div", { id: "answer" },
    h("div", { class: "tiles" },
      tile(`Recall@${k}`, fixed(recall, 3), reallyMissed > 0 ? `${int(reallyMissed)} of ${int(k)} missed` : `all ${int(k)} exact hits found`),
      tile("Time", micros(said.micros), against),
      tile("Reads", int(said.reads), "pages from the disk"),
      tile("Cache hits", int(said.cache_hits), "pages without a read"),
      tile("Expanded", int(said.expanded), "points"),
      tile("Distances", int(said.distances), "computed")),
    panel("How it was found", h("ul", { class: "list" }, words.map((line) => h("li", null, line)))),
    bar,
    h("div", { class: "grid" },
      h("section", { class: "panel" }, h("h2", null, "Search ", h("small", null, `${said.plan}, list size ${int(body.list_size)}`)), left),
      h("section", { class: "panel" }, h("h2", null, "Exact ", h("small", null, "every point compared")), right)));
}

// ---- Recall ----

const TONES = ["graph", "exact"];

export function recallPage(_, parameters) {
  const wanted = parameters.get("collection");
  const of = select(names(), wanted);
  const queries = h("input", { type: "number", min: 1, max: 1000, step: 1, value: "50" });
  const k = h("input", { type: "number", min: 1, max: 10000, step: 1, value: "10" });
  const sizes = h("input", { type: "text", inputmode: "numeric", value: "10, 20, 40, 80, 160, 320", spellcheck: "false" });
  const [work, shown] = [h("div"), h("div")];
  const which = select([], undefined, () => draw(true));
  const beside = select([], undefined, () => draw(true));
  which.setAttribute("data-newest", "");
  const pick = h("div", { class: "fields" }, field("Measurement", which), field("Beside", beside));
  let drawn = "";
  const made = form("Measure", [
    h("div", { class: "fields" },
      field("Collection", of), field("Queries", queries, "The latest that were asked, or the collection's own vectors where fewer than 10 were."), field("k", k, "Hits of a search that are compared."),
      field("List sizes", sizes, "Whole numbers, with commas between them.")),
  ], async () => {
    if (!of.value) throw new Error("There is no collection to measure");
    if (!/\d/.test(sizes.value) || /[^\d\s,;]/.test(sizes.value)) throw new Error("List sizes are whole numbers with commas between them");
    const list = sizes.value.split(/[\s,;]+/).filter(Boolean).map(Number);
    const job = await begin(`${v1(of.value)}/measure`, { queries: Number(queries.value), k: Number(k.value), list_sizes: list });
    ended(job.id).then((end) => {
      if (end.state !== "done") return;
      page.update();
      which.value = String(end.id);
      draw(true);
    });
  }, { role: "admin" });
  const measured = () => jobsOf((job) => job.kind === "measure" && job.state === "done" && job.result);
  const draw = (isAnew) => {
    const one = measured().find((job) => String(job.id) === which.value);
    const other = measured().find((job) => String(job.id) === beside.value && job !== one);
    const said = `${one?.id}/${other?.id}`;
    if (!isAnew && said === drawn) return;
    drawn = said;
    shown.replaceChildren(one ? measuredView([one, other].filter(Boolean)) : panel(null, muted("Nothing was measured yet. A measurement asks the same queries at several list sizes, compares with an exact search, and draws recall against speed.")));
  };
  const page = {
    title: "Recall",
    el: h("div", null, h("h1", { tabindex: -1 }, "Recall"), panel("Measure", made, work), pick, shown),
    update() {
      setOptions(of, names(), of.options.length === 0 ? wanted : of.value);
      made.allow();
      patch(work, jobsOf((job) => job.kind === "measure" && job.state === "running").map(jobView),
        jobsOf((job) => job.kind === "measure").slice(0, 1).filter((job) => job.state === "failed" || job.state === "cancelled").map(jobView));
      const all = measured().map((job) => [String(job.id), `Job ${job.id}: ${job.collection}, recall@${job.result.k}, ${time(job.begun)}`]);
      pick.hidden = all.length === 0;
      setOptions(which, all);
      setOptions(beside, [["", "nothing"], ...all]);
      draw(false);
    },
  };
  return page;
}

function measuredView(jobs) {
  const label = (job) => `${job.collection}, job ${job.id}`;
  const curve = (x, unit) => jobs.map((job, i) => ({
    tone: TONES[i], isDashed: i > 0,
    points: job.result.points.map((point) => ({
      x: point[x], y: point.recall,
      text: `${label(job)}: list size ${int(point.list_size)}, recall@${job.result.k} ${fixed(point.recall, 4)}, ${short(point[x])} ${unit}, p99 ${micros(point.p99_us)}`,
    })),
  }));
  const { k } = jobs[0].result;
  const hasReads = jobs.some((job) => job.result.points.some((point) => point.reads >= 1));
  const two = (value) => fixed(value, 2);
  return h("div", null,
    h("section", { class: "panel" }, jobs.map((job, i) => h("p", null, h("i", { class: `swatch ${TONES[i]}` }), " ", h("strong", null, label(job)),
      `: ${int(job.result.queries)} queries, ${job.result.queries_of}; ${job.result.threads === 1 ? "one thread" : `${job.result.threads} threads`}, ${time(job.begun)}.`,
      job.result.queries_of?.includes("own") && " Own vectors are easier to find than new ones: take the figures as an upper bound."))),
    h("div", { class: "grid even" }, h("section", { class: "panel" }, curveChart("queries a second, one thread", `Recall@${k}`, curve("qps", "queries a second"), short, two)),
      hasReads ? h("section", { class: "panel" }, curveChart("pages read a query", `Recall@${k}`, curve("reads", "reads a query"), short, two))
        : panel(`Recall@${k} against pages read a query`, muted("The searches read next to no page: all they needed was in the cache or in memory. There is no curve to draw."))),
    jobs.map((job) => panel(`Figures of ${label(job)}`, table(`Figures of ${label(job)}`,
      [["List size", "num"], [`Recall@${job.result.k}`, "num"], ["Queries a second", "num"], ["Mean", "num"], ["p99", "num"], ["Reads a query", "num"]],
      job.result.points.map((point) => ({ key: String(point.list_size), cells: [int(point.list_size), fixed(point.recall, 4), int(point.qps), micros(point.mean_us), micros(point.p99_us), fixed(point.reads, 1)] })), { isCards: false }))));
}
