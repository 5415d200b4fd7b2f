"""Results in JSON, as tables in RESULTS.md and as plots.

Of a system that was measured in several ways (threads, queries in flight), what counts at a list size is the way with the best rate.
A table stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; only what is between them is written, so text around them stays.
Marks of a run that RESULTS.md does not have yet are appended to it, as a section to be edited by hand.
Rates and reads at a recall are read between the two measured points around it, the rate on a logarithmic scale.
"""
import json
import math
import re

import plot

NAMES = {
    "roxanne": "roxanne",
    "diskann": "DiskANN",
    "hnswlib": "hnswlib",
    "faiss": "faiss HNSW",
    "usearch": "usearch",
    "arroy": "arroy",
    "hannoy": "hannoy",
    "crvecdb": "crvecdb",
}
# What a system held in memory while it was searched. Ours is measured in several states; the others are what they are.
STATES = {
    "cold": "from disk, no page kept",
    "tenth": "from disk, a tenth of the pages kept",
    "resident": "all in memory",
    "adjacency": "from disk, neighbors in memory",
}
KINDS = {"diskann": "from disk, no page kept", "arroy": "mapped file", "hannoy": "mapped file", "crvecdb": "mapped file"}
TARGETS = [0.90, 0.95, 0.99]
READ_TARGETS = [0.95, 0.956, 0.99]
TABLES = ["setting", "build", "search", "reads", "device", "latency", "points", "floor", "plan", "graph"]
# A share of the CPU that others may take beside a measurement before it is said.
BESIDE = 0.03


def write(directory, results_md):
    """Plots into `directory`; tables into `results_md`, or on standard output where there is none."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    if not found:
        raise SystemExit(f"{directory}: no results yet; run something first")
    systems = {name: found[name] for name in NAMES if name in found}
    tables = {f"{directory.name}-{kind}": globals()[kind + "_table"](found, systems) for kind in TABLES}
    draw(directory, systems)
    if results_md is None:
        print("\n".join(f"{name}\n{table}\n" for name, table in tables.items() if table))
        return
    text = results_md.read_text() if results_md.exists() else "# Results\n"
    missing = [name for name, table in tables.items() if table and f"<!-- begin:{name} -->" not in text]
    if missing:
        text += f"\n## {directory.name}\n" + "".join(f"\n<!-- begin:{name} -->\n<!-- end:{name} -->\n" for name in missing)
    for name, table in tables.items():
        text = between(text, name, table or "Not measured yet.")
    results_md.write_text(text)


def write_micro(path, results_md):
    """The table of the micro benches, between the marks of `micro`."""
    found = json.loads(path.read_text())
    m = found["machine"]
    rows = [[b["name"], b["time"], b["rate"]] for b in found["benches"]]
    text = f"{m['cpu']}, {found['date']}, commit {found['commit']}.\n\n" + table(["bench", "time", "rate"], rows)
    results_md.write_text(between(results_md.read_text(), "micro", text))


def between(text, name, table):
    """`text` with `table` between the marks of `name`, where it has them."""
    mark = re.compile(rf"(<!-- begin:{re.escape(name)} -->\n).*?(<!-- end:{re.escape(name)} -->)", re.DOTALL)
    return mark.sub(lambda m: m[1] + table.rstrip("\n") + "\n" + m[2], text)


def table(head, rows):
    """A Markdown table; the first column to the left, numbers to the right."""
    if not rows:
        return ""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines) + "\n"


def state_of(point):
    """Results from before there were states tell cold and warm alone."""
    return point.get("state") or {True: "cold", False: "warm"}.get(point.get("cold"))


def best_points(result, state=None):
    """The point with the best rate of each list size, in rising order of recall; in one state, where there are several."""
    best = {}
    for p in result["points"]:
        size = p["list_size"]
        if not p.get("rate") and state in (None, state_of(p)) and (size not in best or best[size]["qps"] < p["qps"]):
            best[size] = p
    return sorted(best.values(), key=lambda p: p["recall"])


def curve(points, value="qps"):
    """(recall, value) of points, in rising order of recall."""
    return [(p["recall"], p[value]) for p in points if p.get(value) is not None]


def way(p):
    """How a point was measured: 2 threads, 64 in flight."""
    flight = f", {p['in_flight']} in flight" if p.get("in_flight") else ""
    return f"{p['threads']} thread{'s' if p['threads'] > 1 else ''}{flight}"


def at_recall(points, recall, log=True):
    """The value of a curve at `recall`; None where it was not reached, or where even the first point is beyond it."""
    for (r0, v0), (r1, v1) in zip(points, points[1:]):
        if r0 <= recall <= r1 and r1 > r0:
            share = (recall - r0) / (r1 - r0)
            return math.exp(math.log(v0) + share * (math.log(v1) - math.log(v0))) if log and min(v0, v1) > 0 else v0 + share * (v1 - v0)
    return None


def variants(systems):
    """(label, kind, best points) of every system, ours once for each state that it was measured in."""
    for name, result in systems.items():
        for state in STATES if name == "roxanne" else [None]:
            points = best_points(result, state)
            if points:
                yield NAMES[name], STATES[state] if state else KINDS.get(name, "in memory"), points


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def megabytes(value):
    return "" if not value else f"{value / 1e6:,.0f} MB"


def ratio(value, of):
    return "" if not value or not of else f"{value / of:.1f}x"


def setting_table(found, systems):
    lines = []
    for result in found.values():
        m, d = result["machine"], result["data"]
        line = (
            f"{d['base']}, {d['n']:,} x {d['dim']}, {d['queries']:,} queries, {d['metric']}. {m['cpu']}, {m['cores']} cores "
            f"({', '.join(m['simd'])}), {m['ram_bytes'] / 2**30:.0f} GiB, Linux {m['kernel']}, disk {m['disk']}."
        )
        if line not in lines:
            lines.append(line)
    runs = sorted({(r["run"], r["commit"]) for r in found.values()})
    if len(runs) == 1:
        lines.append(f"One run, begun {runs[0][0]}, commit {runs[0][1]}.")
    else:
        each = "; ".join(f"{', '.join(n for n, r in found.items() if (r['run'], r['commit']) == run)}: {run[0]}, {run[1]}" for run in runs)
        lines.append(f"Of several runs, so ratios between them are indications only. {each}.")
    beside = max(r.get("others", 0) for r in found.values())
    if beside > BESIDE:
        worst = max(found, key=lambda name: found[name].get("others", 0))
        lines.append(f"Others took up to {100 * beside:.0f}% of the CPU meanwhile (beside {worst}).")
    load = max(r.get("load_before", 0) for r in found.values())
    if load > 0.5:
        lines.append(f"The machine was not idle (load {load:.1f} at the start): these figures are too low.")
    return "\n".join(lines) + "\n"


def settings_text(name, result):
    s = result["settings"]
    if name == "roxanne":
        p = result["index"]["params"]
        return f"R {p['degree']}, alpha {p['alpha']}, leaf k {p['leaf-k']}, reservoir {p['reservoir']}, {result['index']['code_bytes']}-byte codes"
    if name == "diskann":
        return f"R {s['graph_degree']}, L {s['complexity']}, {s['code_bytes']}-byte codes"
    if name == "arroy":
        return f"{result['build'].get('trees', '')} trees, its own choice"
    return f"M {s.get('M', 16)}, ef {s['ef_construction']}"


def build_table(found, systems):
    ours = systems.get("roxanne")
    rows, earlier, beside = [], False, []
    for name, r in systems.items():
        b = r["build"]
        # The peers' input lies in their process's memory and is theirs to give back; what they needed beyond it is the fairer figure.
        beyond = b["peak_rss_bytes"] - b.get("input_bytes", 0)
        kept = b.get("run", r["run"]) != (ours or r)["run"]
        earlier |= kept
        against = ratio(b["seconds"], ours["build"]["seconds"]) + "*" * kept if ours else ""
        if b.get("others", 0) > BESIDE:
            beside.append(f"{NAMES[name]} ({100 * b['others']:.0f}%)")
        sizes = [megabytes(beyond), megabytes(b.get("index_bytes"))]
        rows.append([NAMES[name], settings_text(name, r), r["settings"]["build_threads"], number(b["seconds"], 1), against, *sizes])
    head = ["system", "settings", "threads", "seconds", "against ours", "peak memory beyond the input", "index on disk"]
    notes = ["\\* built in another run than ours: an indication only."] * earlier
    notes += [f"Builds that others took CPU from, so too slow: {', '.join(beside)}."] * bool(beside)
    return table(head, rows) + "".join(f"\n{note}\n" for note in notes)


def search_table(found, systems):
    rows = []
    for name, kind, points in variants(systems):
        memory = max(p["rss_bytes"] for p in points)
        rates = [number(at_recall(curve(points), t)) for t in TARGETS]
        rows.append([name, kind, near(points, 0.95), *rates, f"{points[-1]['recall']:.4f}", megabytes(memory)])
    return table(["system", "", "best rate near 0.95 with", *(f"QPS at {t:.2f}" for t in TARGETS), "best recall", "memory"], rows)


def near(points, recall):
    """How the first point past `recall` was measured, or the last of all."""
    return way(next((p for p in points if p["recall"] >= recall), points[-1]))


def reads_table(found, systems):
    """Reads a query, rate, and what the rate asks of the device, of all that read from disk; ours over DiskANN's at the end."""
    device = best_device(found)
    values, rows = {}, []
    for name, kind, points in variants({n: systems[n] for n in ("roxanne", "diskann") if n in systems}):
        if not any(p.get("reads") for p in points):
            continue
        reads = [at_recall(curve(points, "reads"), t, log=False) for t in READ_TARGETS]
        rates = [at_recall(curve(points), t) for t in READ_TARGETS]
        asked = [r * q if r and q else None for r, q in zip(reads, rates)]
        values[name, kind] = reads + rates
        shares = [f"{number(a)} ({a / device:.2f})" if a and device else number(a) for a in asked]
        rows.append([f"{name}, {kind}", *(number(r, 1) for r in reads), *(number(q) for q in rates), *shares])
    theirs = values.get((NAMES["diskann"], KINDS["diskann"]))
    ours = values.get((NAMES["roxanne"], STATES["cold"]))
    if ours and theirs:
        over = [f"{a / b:.2f}x" if a and b else "" for a, b in zip(ours, theirs)]
        rows.append(["roxanne over DiskANN", *over, *[""] * len(READ_TARGETS)])
    at = [f"at {t:g}" for t in READ_TARGETS]
    head = [f"reads of 4 KiB a query {at[0]}", *at[1:], f"QPS {at[0]}", *at[1:], f"QPS x reads {at[0]} (share of fio)", *at[1:]]
    return table(["", *head], rows)


def best_device(found):
    """The most reads a second that fio saw; None where it did not run."""
    return max((p["reads_per_second"] for p in found["fio"]["points"]), default=None) if "fio" in found else None


def device_table(found, systems):
    """What fio read, by depth and threads."""
    if "fio" not in found:
        return ""
    points = found["fio"]["points"]
    threads = sorted({p["threads"] for p in points})
    cell = {(p["threads"], p["depth"]): p for p in points}
    text = lambda p: f"{number(p['reads_per_second'])} ({number(p['mean_us'])} us)" if p else ""
    rows = [[d, *(text(cell.get((t, d))) for t in threads)] for d in sorted({p["depth"] for p in points})]
    about = f"\n{found['fio']['versions']['fio']}, a file of {megabytes(found['fio']['settings']['file_bytes'])}.\n"
    heads = [f"reads/s (mean latency), {t} thread{'s' if t > 1 else ''}" for t in threads]
    return table(["depth of each thread", *heads], rows) + about


def latency_table(found, systems):
    """Latency at half the best rate of a list size: at that very rate where it was measured so, else in the slowest way that reached it."""
    rows = []
    for name in ("roxanne", "diskann"):
        points = [p for p in systems.get(name, {"points": []})["points"] if state_of(p) == "cold"]
        for target in (0.95, 0.99):
            size = min((p["list_size"] for p in points if p["recall"] >= target), default=None)
            same = [p for p in points if p["list_size"] == size]
            closed = [p for p in same if not p.get("rate")]
            if not closed:
                continue
            best = max(closed, key=lambda p: p["qps"])
            rated = next((p for p in same if p.get("rate")), None)
            p = rated or min((p for p in closed if p["qps"] >= best["qps"] / 2), key=lambda p: p["qps"])
            how = f"{way(p)}, queries at {number(p['rate'])}/s" if rated else way(p)
            times = [number(p[key]) for key in ("mean_us", "p50_us", "p99_us")]
            rows.append([NAMES[name], f"{target:g} ({size:g})", number(best["qps"]), number(p["qps"]), how, *times])
    return table(["", "at recall", "best QPS", "QPS", "measured with", "mean us", "p50", "p99"], rows)


def points_table(found, systems):
    r = systems.get("roxanne")
    if not r:
        return ""
    key = lambda p: (state_of(p), p["threads"], p.get("in_flight"))
    cells = {(*key(p), p["list_size"]): p for p in r["points"]}
    series = sorted({key(p) for p in r["points"]}, key=lambda s: ([*STATES, "warm"].index(s[0]), s[1], s[2] or 0))
    rows = []
    for p in sorted(best_points(r, "cold"), key=lambda p: p["list_size"]):
        rates = [number((cells.get((*s, p["list_size"])) or {}).get("qps")) for s in series]
        times = [number(p[name]) for name in ("mean_us", "p50_us", "p99_us", "p999_us")]
        found_at = [f"{p['list_size']:g}", f"{p['recall']:.4f}", number(p["reads"], 1), number(p["distances"])]
        rows.append([*found_at, *rates, *times, megabytes(p["rss_bytes"])])
    rates = [f"QPS, {state}, {way({'threads': threads, 'in_flight': flight})}" for state, threads, flight in series]
    return table(["slack", "recall", "reads", "distances", *rates, "mean us", "p50", "p99", "p99.9", "RSS"], rows)


def floor_table(found, systems):
    r = systems.get("roxanne")
    work = r and r["build"].get("work")
    if not work:
        return ""
    b, threads = r["build"], r["settings"]["build_threads"]
    rows = []
    for stage in ("assign", "leaf"):
        pairs, seconds = work[f"{stage}_pairs"], work[f"{stage}_seconds"]
        rate = pairs / seconds / threads if seconds else 0
        rows.append([stage, f"{pairs / 1e9:.2f}e9", f"{pairs / b['n']:,.0f}", f"{seconds:.2f}", f"{rate / 1e9:.2f}e9", share(seconds, b)])
    for stage in ("merge", "prune"):
        seconds = work[f"{stage}_seconds"]
        rows.append([stage, "", "", f"{seconds:.2f}", "", share(seconds, b)])
    rest = b["seconds"] - sum(work[f"{stage}_seconds"] for stage in ("assign", "leaf", "merge", "prune"))
    rows.append(["all else (read, codes, order, write)", "", "", f"{rest:.2f}", "", share(rest, b)])
    rows.append(["whole", "", "", f"{b['seconds']:.2f}", "", "100%"])
    phases = ", ".join(f"{p['name']} {p['seconds']:.2f}" for p in b["phases"])
    head = ["stage", "pairs", "pairs a vector", "seconds", "pairs/s a core", "share of the time"]
    return table(head, rows) + f"\nPhases, in seconds: {phases}.\n"


def share(seconds, built):
    return f"{100 * seconds / built['seconds']:.0f}%"


def plan_table(found, systems):
    r = systems.get("roxanne")
    if not r or "plan" not in r:
        return ""
    plan, built = r["plan"], r["build"]
    serve = max(p["rss_bytes"] for p in r["points"] if state_of(p) in ("cold", "warm"))
    rows = [
        ["peak memory of the build", plan["peak_ram_bytes"], built["peak_rss_bytes"]],
        ["index on disk", plan["index_bytes"], built["index_bytes"]],
        ["memory while serving", plan["serve_ram_bytes"], serve],
    ]
    return table(["", "planned", "measured", "error"], [[n, megabytes(p), megabytes(m), f"{100 * (p - m) / m:+.1f}%"] for n, p, m in rows])


def graph_table(found, systems):
    r = found.get("graph")
    if not r:
        return ""
    rows = [[f"{d['at_distances']:,.0f}", f"{d['roxanne']:.4f}", f"{d['vamana']:.4f}", f"{d['difference']:+.4f}"] for d in r["differences"]]
    s = r["summary"]
    built = {g["graph"]: f"{g['build_seconds']:.1f} s, mean degree {g['mean_degree']:.1f}" for g in r["graphs"]}
    text = f"\nn = {s['n']:,}, degree {s['degree']}, alpha {s['alpha']}; ours {built['roxanne']}; Vamana (L {s['vamana_list_size']}) {built['vamana']}.\n"
    return table(["distance computations", "recall, ours", "recall, Vamana", "difference"], rows) + text


def draw(directory, systems):
    """recall-qps.svg of all systems, recall-reads.svg of those that read."""
    several = len({kind for name, kind, _ in variants(systems) if name == NAMES["roxanne"]}) > 1
    label = lambda name, kind: f"{name}, {kind}" if several and name == NAMES["roxanne"] else name
    rates = [(label(name, kind), curve(points)) for name, kind, points in variants(systems)]
    reads = [(label(name, kind), curve(points, "reads")) for name, kind, points in variants(systems) if any(p.get("reads") for p in points)]
    some = next(iter(systems.values()), None)
    if not some:
        return
    d = some["data"]
    subtitle = f"{d['base']}: {d['n']:,} x {d['dim']}, {d['metric']}; {some['machine']['cpu']}, {some['machine']['cores']} cores"
    k = some["settings"]["k"]
    for file, title, axis, series in (
        ("recall-qps.svg", "Recall against speed", "queries per second", rates),
        ("recall-reads.svg", "Recall against reads", "reads of 4 KiB a query", reads),
    ):
        if series:
            (directory / file).write_text(plot.svg(title, subtitle, f"recall@{k}", axis, series))
