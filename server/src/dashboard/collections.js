// Collections: all of them, and one with its base, its snapshots and its other names.

import {
  action, api, at, begin, bytes, check, collection, collections, confirm, dim, distance, ended, errorBox, facts, field, fixed, form, h, int, jobsOf, jobView, mayNot,
  meter, muted, panel, patch, percent, select, setOptions, stack, state, table, tag, tile, time, UNKNOWN, v1,
} from "./lib.js";

const recallText = (one) => typeof one.standing?.canary_recall === "number" ? fixed(one.standing.canary_recall, 3) : UNKNOWN;
const link = (name) => h("a", { href: `#/collections/${encodeURIComponent(name)}` }, name);
const statusTag = (one) => one.info?.status === "green" ? tag("good", "well") : one.info?.status ? tag("warn", "trouble") : tag("", UNKNOWN);
const datatype = (one) => one.info?.roxanne?.datatype ?? UNKNOWN;

export function collectionTable() {
  const columns = [["Collection", ""], ["Points", "num"], ["Dimensions", "num"], ["Distance", ""], ["Datatype", ""], ["In the base", "num"], ["In memory", "num"], ["Canary recall@10", "num"], ["Status", ""]];
  const rows = collections().map((one) => ({
    key: one.name,
    cells: [link(one.name), int(one.standing?.points), int(dim(one)), distance(one) ?? UNKNOWN, datatype(one), int(one.standing?.base_points), int(one.standing?.in_memory), recallText(one), statusTag(one)],
  }));
  return table("Collections", columns, rows, { empty: state.overview ? "There are no collections yet." : state.error ? "Unknown: the server has told nothing yet." : "Loading." });
}

/** What lies in DATA/incoming, as [name, text]; null where the server does not tell. */
export function incoming(which) {
  const all = state.overview?.incoming;
  return Array.isArray(all) ? all.filter(which).map(({ name, bytes: size }) => [name, `${name} (${bytes(size)})`]) : null;
}

// A list where the server tells what there is, a text where it does not or where nothing lies there.
function incomingControl(which, none) {
  const options = () => [...none ? [["", none]] : [], ...incoming(which) ?? []];
  // A key for some collections is told of none, and may name one.
  if (!(incoming(which)?.length > 0)) return h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "name in DATA/incoming" });
  const el = select(options());
  el.refresh = () => { if (incoming(which)?.length > 0) setOptions(el, options()); };
  return el;
}

const isVectors = ({ name, is_index: isIndex }) => !isIndex && /\.(fbin|f16bin|bf16bin|u8bin|i8bin|fvecs|bvecs|npy)$/i.test(name);
const isOther = ({ name, is_index: isIndex }) => !isIndex && !isVectors({ name });

// ---- All ----

export function allPage() {
  const list = h("div");
  const name = h("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 200 });
  const size = h("input", { type: "number", min: 1, max: 8192, step: 1, inputmode: "numeric", value: "128" });
  const near = select([["Cosine", "Cosine"], ["Dot", "Dot product"], ["Euclid", "Euclid (L2)"], ["Manhattan", "Manhattan (L1)"]], "Cosine");
  const type = select([["float32", "float32, 4 bytes"], ["float16", "float16, 2 bytes"], ["uint8", "uint8, 1 byte"]], "float32");
  const create = form("Create collection", [
    field("Name", name, "Letters, digits, _ - and . ; it does not begin with a dot."),
    h("div", { class: "fields" }, field("Dimensions", size, "Coordinates of a vector."), field("Distance", near), field("Datatype", type, "Of a coordinate, as it is stored.")),
  ], async () => {
    const made = name.value.trim();
    if (!made) throw new Error("Give the collection a name");
    await api("PUT", at(made), { vectors: { size: Number(size.value), distance: near.value, datatype: type.value } });
    name.value = "";
    await state.poll();
    return `Collection ${made} is there`;
  }, { role: "admin" });
  return {
    title: "Collections",
    el: h("div", null, h("h1", { tabindex: -1 }, "Collections"), panel(null, list), panel("New collection", create)),
    update() {
      patch(list, collectionTable());
      create.allow();
    },
  };
}

// ---- One ----

export function onePage(name) {
  const [head, told, standing, work, base, memory, jobs, aliases, copies] = Array.from({ length: 9 }, () => h("div"));
  let snapshots = null;
  let snapshotsError = null;
  const admin = { role: "admin" };

  const readSnapshots = async () => {
    try {
      snapshots = await api("GET", `${at(name)}/snapshots`);
      snapshotsError = null;
    } catch (error) {
      snapshotsError = error;
    }
    page.update();
  };
  const start = async (path, body) => {
    const job = await begin(`${v1(name)}/${path}`, body);
    ended(job.id).then(readSnapshots);
  };

  // Promote.
  const index = incomingControl(({ is_index: isIndex }) => isIndex);
  const sequence = h("input", { type: "number", min: 0, step: 1, inputmode: "numeric", value: collection(name)?.standing?.sequence ?? "" });
  const keep = check("Keep the base before, for a rollback", true, "It takes its room on the disk until it is forgotten.");
  const gated = check("Gate: refuse the index under this recall@10", false, "Vectors of its own are looked for with a list size of 100, against an exact search.");
  const least = h("input", { type: "number", min: 0, max: 1, step: 0.01, value: "0.95", disabled: true });
  const sample = h("input", { type: "number", min: 1, max: 1000, step: 1, value: "100", disabled: true });
  gated.input.onchange = () => [least, sample].forEach((input) => { input.disabled = !gated.input.checked; });
  const mode = select([["", "as the server was started"], ["overlap", "overlap: both in memory"], ["half", "half: the old one from flash"], ["drain", "drain: others answer"]], "");
  const promote = form("Promote", [
    field("Index in DATA/incoming", index, "Build one on the Storage page, or with roxanne build on any machine, and put it there."),
    field("Batch (sequence)", sequence, "The last batch that was written before the vectors of the index were read. The current one is filled in: right only if nothing was written since. What was written after this batch stays. If in doubt, take a smaller number."),
    keep.el, gated.el, h("div", { class: "fields" }, field("Least recall@10", least), field("Vectors looked for", sample)),
    field("Memory meanwhile", mode, "Under drain this server refuses searches until the new base is there."),
  ], async () => {
    if (!index.value) throw new Error("Choose an index of DATA/incoming first");
    if (!/^\d+$/.test(sequence.value)) throw new Error("The batch is a whole number");
    const body = { index: index.value, sequence: BigInt(sequence.value), keep_previous: keep.input.checked };
    if (mode.value) body.mode = mode.value;
    if (gated.input.checked) body.gate = { recall_at_10: Number(least.value), queries: Number(sample.value) };
    await start("promote", body);
  }, admin);

  // Import.
  const vectors = incomingControl(isVectors);
  const keys = incomingControl(isOther, "none: ids are row numbers");
  const payload = incomingControl(isOther, "none");
  const put = form("Import", [
    field("File of vectors in DATA/incoming", vectors, "fbin, f16bin, u8bin, npy and others that roxanne insert reads."),
    h("div", { class: "fields" }, field("File of ids", keys, "One id a line."), field("File of payloads", payload, "One JSON object a line.")),
  ], async () => {
    if (!vectors.value) throw new Error("Choose a file of DATA/incoming first");
    await start("import", { vectors: vectors.value, keys: keys.value || null, payload: payload.value || null });
  }, admin);

  // Aliases.
  const alias = h("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 200 });
  const addAlias = form("Add alias", [field("New alias", alias, "An alias that is there already moves to this collection.")], async () => {
    const made = alias.value.trim();
    if (!made) throw new Error("Give the alias a name");
    await api("POST", "/collections/aliases", { actions: [{ create_alias: { alias_name: made, collection_name: name } }] });
    alias.value = "";
    await state.poll();
    return `${made} is an alias of ${name}`;
  }, { ...admin, kind: "" });

  const remove = async () => {
    const text = [`This removes ${name}, all its points and its aliases. Snapshots stay.`];
    if (!await confirm({ title: "Delete collection", text, confirm: "Delete collection", name })) return null;
    await api("DELETE", at(name));
    location.hash = "#/collections";
    await state.poll();
    return `${name} is deleted`;
  };
  const danger = h("div");

  const page = {
    title: name,
    el: h("div", null, head, told, standing, work,
      h("div", { class: "grid" },
        h("div", { class: "column" }, panel("Base", base),
          panel("Promote an index", muted("Makes an index of DATA/incoming the base. All its bytes are checked first; searches go on meanwhile."), promote)),
        h("div", { class: "column" }, panel("Memory", memory), panel("Import", muted("Puts the vectors of a file as points, as a job."), put), panel("Snapshots", copies), panel("Aliases", aliases, addAlias))),
      panel("Jobs of this collection", jobs), panel("Delete", danger)),
    update() {
      const one = collection(name);
      patch(head, h("p", { class: "crumbs" }, h("a", { href: "#/collections" }, "Collections")),
        h("div", { class: "row" }, h("h1", { tabindex: -1 }, name), one && statusTag(one),
          one && h("span", { class: "push actions" }, h("a", { class: "button", href: `#/query?collection=${encodeURIComponent(name)}` }, "Query"), h("a", { class: "button", href: `#/recall?collection=${encodeURIComponent(name)}` }, "Measure recall"))));
      if (!one) {
        const of = state.overview?.aliases?.aliases?.find((alias) => alias.alias_name === name);
        patch(told, !state.overview ? muted(state.error ? "Unknown: the server has told nothing yet." : "Loading.") : of ? h("p", null, "This is an alias of ", link(of.collection_name), ".") : h("div", { class: "box warn" }, h("p", null, `There is no collection ${name}, or your key is not for it.`)));
        for (const sibling of [standing, work]) patch(sibling);
        page.el.classList.add("gone");
        return;
      }
      page.el.classList.remove("gone");
      const { standing: stands = {}, info = {} } = one;
      const of = info.roxanne ?? {};
      const trouble = info.optimizer_status?.error;
      patch(told, trouble && h("div", { class: "box bad", role: "alert" }, h("strong", null, "Background work failed"), h("p", null, trouble)), mayNot("admin") && h("div", { class: "box" }, h("p", null, mayNot("admin"))));
      patch(standing, h("div", { class: "tiles" },
        tile("Points", int(stands.points), `${int(dim(one))} dimensions, ${distance(one) ?? UNKNOWN}, ${datatype(one)}`),
        tile("In the base", int(stands.base_points), stands.generation ? `generation ${stands.generation}` : "no base yet"),
        tile("In memory", int(stands.in_memory), "points in no base yet"),
        tile("Last batch", int(stands.sequence), "sequence"),
        tile("Canary recall@10", recallText(one), typeof stands.canary_recall === "number" ? "of queries that were asked" : "no query was compared yet")));
      const running = jobsOf((job) => job.collection === name && job.state === "running");
      const past = jobsOf((job) => job.collection === name && job.state !== "running");
      patch(work, running.length > 0 && panel("At work", running.map(jobView)));
      patch(jobs, past.length === 0 ? muted("None has ended yet.") : past.slice(0, 8).map(jobView));
      const busy = running.length > 0 ? `Job ${running[0].id} of this collection is at work.` : null;
      const previous = stands.previous;
      patch(base, facts([
        ["Generation", stands.generation ?? "no base yet"],
        ["Slots of the base", int(stands.base_points)],
        ["Slots to merge away", int(of.base_dead), "their point was replaced or deleted"],
        ["Free slots", int(of.base_free), "room for points to come"],
        ["Base before", previous ? `kept, stood after batch ${int(previous.sequence)}` : "not kept"],
      ]),
      h("div", { class: "actions" },
        action("Rebuild base", () => start("rebuild"), { key: "rebuild", disabled: busy ?? (stands.points > 0 ? null : "There are no points.") }),
        action("Roll back", async () => {
          const text = [`The base that stood after batch ${int(previous.sequence)} comes back. What was written since is kept, in memory.`];
          if (await confirm({ title: "Roll back", text, confirm: "Roll back", kind: "primary" })) await start("rollback");
        }, { key: "rollback", disabled: previous ? busy : "No base before is kept." }),
        action("Forget base before", async () => {
          const text = ["The base before is removed from the disk. There is no rollback after that."];
          if (!await confirm({ title: "Forget the base before", text, confirm: "Forget it" })) return null;
          await api("DELETE", `${v1(name)}/previous`);
          await state.poll();
          return "The base before is forgotten";
        }, { key: "forget", disabled: previous ? busy : "No base before is kept." })),
      muted(previous ? "A rebuild builds a base of all points, in the background." : "A rebuild builds a base of all points. A rollback is there after a promotion that keeps the base before."));
      const { codes, cache, delta, allowed } = one.memory ?? {};
      const part = of.delta_allowed_bytes > 0 ? of.delta_bytes / of.delta_allowed_bytes : null;
      patch(memory, facts([
        ["Codes", bytes(codes), "always in memory"], ["Cache", bytes(cache), "what pages may take"], ["Delta", bytes(delta), "vectors in no base yet"], ["Allowed", bytes(allowed)],
      ]), stack([["codes", codes], ["cache", cache], ["delta", delta]], allowed || 1, `Codes, cache and delta of ${bytes(allowed)}`),
      h("div", { class: "use" }, h("div", { class: "row" }, h("strong", null, "Delta"), h("span", { class: "push num muted" }, `${bytes(of.delta_bytes)} of ${bytes(of.delta_allowed_bytes)}${part === null ? "" : ` (${percent(part)})`}`)),
        meter(part ?? 0, part >= 0.8 ? "warn" : "info", `Delta, ${percent(part)} in use`)),
      muted(`${int(of.delta_points)} points wait to be merged. When the delta is full, writes are refused until the base has taken them.`));
      const others = state.overview.aliases?.aliases?.filter((other) => other.collection_name === name) ?? [];
      patch(aliases, table("Aliases", [["Alias", ""], ["", "end"]], others.map(({ alias_name: other }) => ({
        key: other,
        cells: [other, action("Delete", async () => {
          await api("POST", "/collections/aliases", { actions: [{ delete_alias: { alias_name: other } }] });
          await state.poll();
          return `Alias ${other} is deleted`;
        }, { kind: "small" })],
      })), { empty: "No other names." }));
      patch(copies, snapshotsError ? errorBox(snapshotsError) : snapshots === null ? muted("Loading.") : snapshotTable(name, snapshots, readSnapshots, busy),
        h("div", { class: "actions" }, action("Create snapshot", () => start("snapshot"), { key: "snap", disabled: busy })));
      patch(danger, muted("Removes the collection and all its points."), h("div", { class: "actions" }, action("Delete collection", remove, { kind: "danger", key: "delete", disabled: busy })));
      [promote, put, addAlias].forEach((made) => made.allow());
      [index, vectors, keys, payload].forEach((control) => control.refresh?.());
      if (sequence.value === "" && document.activeElement !== sequence) sequence.value = stands.sequence ?? "";
    },
  };
  readSnapshots();
  return page;
}

export function snapshotTable(name, snapshots, refresh, busy) {
  const rows = snapshots.map((one) => ({
    key: one.name,
    cells: [one.name, time(one.creation_time), bytes(one.size), h("span", { class: "actions end" },
      action("Recover", async () => {
        const text = [`${name} becomes what this snapshot holds. What was written since is lost.`];
        if (!await confirm({ title: "Recover a snapshot", text, confirm: "Recover", name })) return null;
        await api("PUT", `${at(name)}/snapshots/recover`, { location: one.name });
        await state.poll();
        return `${name} is what ${one.name} holds`;
      }, { kind: "small", disabled: busy }),
      action("Delete", async () => {
        if (!await confirm({ title: "Delete snapshot", text: [`${one.name} of ${name} is removed from the disk.`], confirm: "Delete snapshot" })) return null;
        await api("DELETE", `${at(name)}/snapshots/${encodeURIComponent(one.name)}`);
        await refresh();
        return `Snapshot ${one.name} is deleted`;
      }, { kind: "small" }))],
  }));
  return table(`Snapshots of ${name}`, [["Snapshot", ""], ["Made", "num left"], ["Size", "num"], ["", "end"]], rows, { empty: "No snapshots." });
}
