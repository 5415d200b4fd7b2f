"""The dashboard in a browser, over a server of its own: python dashboard.py ROXANNE [--screenshots DIR]

Needs Playwright (pip install playwright) and a Chromium: /usr/bin/chromium, or what CHROMIUM names. `--pages DIR` serves the pages from a directory
instead of the program's own, to work on them without a build.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import tempfile
import threading
import urllib.request

from playwright.sync_api import expect, sync_playwright

POINTS, DIM = 5000, 16
WAIT = 60_000
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGES = ["overview", "collections", "collections/demo", "query", "recall", "sizing", "storage", "keys", "api"]


def fill(incoming):
    """Vectors around 40 centers, and their ids."""
    incoming.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    centers = [[chance.gauss(0, 1) for _ in range(DIM)] for _ in range(40)]
    rows = [[x + chance.gauss(0, 0.25) for x in chance.choice(centers)] for _ in range(POINTS)]
    flat = [x for row in rows for x in row]
    (incoming / "small.fbin").write_bytes(struct.pack("<II", POINTS, DIM) + struct.pack(f"<{len(flat)}f", *flat))
    (incoming / "small.keys").write_text("".join(f"{i}\n" for i in range(POINTS)))
    (incoming / "small.payload").write_text("".join(json.dumps({"kind": "even" if i % 2 == 0 else "odd", "row": i}) + "\n" for i in range(POINTS)))
    return rows


class Server:
    def __init__(self, program, data):
        command = [program, "serve", "--data", str(data), "--bind", "127.0.0.1:0", "--canary-every", "1s", "--log-level", "error"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"serving at (http://\S+)", line)
        assert found, f"the server said {line!r}"
        self.base = found[1]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["result"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Load:
    """Searches in the background, so that there is something to draw."""

    def __init__(self, server, rows):
        self.over = threading.Event()

        def ask():
            chance = random.Random(1)
            while not self.over.is_set():
                body = {"query": chance.choice(rows), "limit": 10}
                if chance.random() < 0.3:
                    body["filter"] = {"must": [{"key": "kind", "match": {"value": "even"}}]}
                if chance.random() < 0.05:
                    body["params"] = {"exact": True}
                try:
                    server.ask("POST", "/collections/demo/points/query", body)
                except OSError:
                    pass
                self.over.wait(0.01 + 0.04 * chance.random())

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()

    def stop(self):
        self.over.set()
        self.thread.join(60)


class Browser:
    def __init__(self, playwright, server, pages, shots):
        program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        self.browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        self.server, self.pages, self.shots = server, pages, shots
        self.wrong = []

    def context(self, width=1360, height=860, scheme="light"):
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(WAIT)
        if self.pages:
            context.route(self.server.base + "/dashboard**", self.from_disk)
        return context

    def from_disk(self, route):
        path = route.request.url.removeprefix(self.server.base).split("?")[0].split("#")[0]
        file = self.pages / ("index.html" if path == "/dashboard" else path.rsplit("/", 1)[1])
        headers = {"content-type": KINDS[file.suffix], "content-security-policy": POLICY, "x-content-type-options": "nosniff"}
        route.fulfill(body=file.read_bytes(), headers=headers)

    def page(self, context):
        page = context.new_page()
        page.on("console", lambda said: self.wrong.append(f"console: {said.text}") if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("response", lambda answer: self.wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.on("requestfailed", self.failed)
        return page

    def failed(self, request):
        # What the page itself ends: events of a job that has ended, questions of a page that was left.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed: {request.url} {request.failure}")

    def open(self, page, name):
        page.goto(f"{self.server.base}/dashboard#/{name}")
        expect(page.locator("#page h1")).to_be_visible()
        expect(page.locator("#status")).to_contain_text("Up")

    def shot(self, page, name, full=True):
        if self.shots:
            page.screenshot(path=str(self.shots / f"{name}.png"), full_page=full)

    def clean(self, where):
        assert not self.wrong, f"{where}: {self.wrong}"


def done(page, what):
    """Waits until a job of the page has ended well; a word of its end stands in the corner, and then only in the list."""
    expect(page.locator(".job").filter(has_text=what).filter(has_text="took").first).to_contain_text("done")


def tab_to(page, label):
    """Goes to what is called so by the Tab key alone."""
    said = """() => { const e = document.activeElement; const of = e.labels && e.labels[0] ? e.labels[0].textContent : (e.getAttribute('aria-label') || e.textContent);
        return of.trim(); }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(said) == label:
            assert page.evaluate("document.activeElement.matches(':focus-visible')"), f"focus on {label} is not seen"
            return
    raise AssertionError(f"{label} is not reached by the keyboard")


def create_by_keyboard(browser, page):
    browser.open(page, "overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    browser.open(page, "overview")
    page.reload()
    expect(page.locator("#status")).to_contain_text("Up")
    tab_to(page, "Collections")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Collections")
    tab_to(page, "Name")
    page.keyboard.type("demo")
    tab_to(page, "Dimensions")
    page.keyboard.press("Control+a")
    page.keyboard.type(str(DIM))
    tab_to(page, "Distance")
    page.keyboard.type("Euclid")
    tab_to(page, "Create collection")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="demo", exact=True)).to_be_visible()
    expect(page.locator("#live")).to_have_text("Collection demo is there")


def import_points(browser, page):
    browser.open(page, "collections/demo")
    # By its own address, too.
    page.reload()
    page.get_by_label("File of vectors").select_option("small.fbin")
    page.get_by_label("File of ids").select_option("small.keys")
    page.get_by_label("File of payloads").select_option("small.payload")
    page.get_by_role("button", name="Import", exact=True).click()
    done(page, "Import of demo")
    expect(page.locator(".tile").filter(has_text="Points").first.locator(".value")).to_have_text("5,000")


def search(browser, page, rows):
    browser.open(page, "query")
    page.get_by_label("Point's id", exact=True).fill("7")
    page.get_by_role("button", name="Search", exact=True).click()
    hits = page.get_by_role("region", name="Hits of the search").locator("tbody tr")
    exact = page.get_by_role("region", name="Hits of the exact search").locator("tbody tr")
    expect(hits).to_have_count(10)
    expect(exact).to_have_count(10)
    expect(hits.first.locator("code")).to_have_text("7")
    expect(page.locator("#answer .tile").first).to_contain_text("Recall@10")
    expect(page.locator("#answer")).to_contain_text("Plan graph")
    page.get_by_role("button", name="Show payloads").click()
    expect(hits.first.locator(".payload")).to_contain_text('"row":7')
    # A short list misses some, and the page says which.
    page.get_by_label("A vector").check()
    page.get_by_label("Vector", exact=True).fill("[1, 2]")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".box.bad")).to_contain_text("has 2 numbers")
    page.get_by_label("Vector", exact=True).fill(json.dumps([-x for x in rows[3]]))
    page.get_by_label("List size").fill("10")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Filter, JSON").fill('{"must": [{"key": "kind", "match": {"value": "odd"}}]}')
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#answer")).to_contain_text("Plan filtered")
    page.get_by_role("button", name="No filter").click()
    page.get_by_label("A point's id").check()
    page.get_by_role("button", name="Random point").click()
    expect(page.locator("#answer")).to_contain_text("Plan graph")
    assert page.get_by_label("Point's id", exact=True).input_value() != "7"


def measure(browser, page):
    browser.open(page, "recall")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("circle.dot.big").first).to_be_visible(timeout=WAIT)
    expect(page.locator("main")).to_contain_text("50 queries")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(6)
    page.locator("circle.dot.big").first.focus()
    expect(page.locator(".tip").first).to_contain_text("list size 10")


def build(browser, page):
    browser.open(page, "storage")
    page.get_by_role("row", name=re.compile("small.fbin")).get_by_role("button", name="Build index").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("File of ids").select_option("small.keys")
    dialog.get_by_label("Capacity").fill("8000")
    dialog.get_by_role("button", name="Build", exact=True).click()
    expect(dialog).to_be_hidden()
    done(page, "Build of small.rx")
    expect(page.get_by_role("row", name=re.compile("small.rx"))).to_contain_text("index")
    page.get_by_role("row", name=re.compile("small.rx")).get_by_role("button", name="Check all bytes").click()
    done(page, "Check of small.rx")


def bases(browser, page):
    browser.open(page, "collections/demo")
    generation = page.locator(".pairs div").filter(has_text="Generation").locator("dd")
    expect(page.get_by_role("button", name="Roll back")).to_be_disabled()
    page.get_by_role("button", name="Rebuild base").click()
    done(page, "Rebuild of demo")
    expect(generation).to_have_text(re.compile("^[0-9a-f]{16}"))
    before = generation.inner_text()
    page.get_by_label("Index in DATA/incoming").select_option("small.rx")
    assert int(page.get_by_label("Batch (sequence)").input_value()) > 0
    page.get_by_label("Gate: refuse").check()
    page.get_by_label("Least recall@10").fill("0.5")
    page.get_by_label("Memory meanwhile").select_option("half")
    page.get_by_role("button", name="Promote", exact=True).click()
    done(page, "Promotion of demo")
    expect(generation).not_to_have_text(before)
    after = generation.inner_text()
    roll = page.get_by_role("button", name="Roll back")
    expect(roll).to_be_enabled()
    roll.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    # Focus is back where it was.
    assert page.evaluate("document.activeElement.textContent") == "Roll back"
    roll.click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    done(page, "Rollback of demo")
    expect(generation).not_to_have_text(after)
    page.get_by_label("New alias").fill("today")
    page.get_by_role("button", name="Add alias").click()
    expect(page.get_by_role("row", name=re.compile("today"))).to_be_visible()
    page.get_by_role("row", name=re.compile("today")).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("row", name=re.compile("today"))).to_have_count(0)
    page.get_by_role("button", name="Create snapshot").click()
    done(page, "Snapshot of demo")
    copies = page.get_by_role("region", name="Snapshots of demo").locator("tbody tr")
    expect(copies).to_have_count(1)


def looks(browser, server):
    """All pages by day, by night, and on a telephone."""
    for scheme in ("light", "dark"):
        context = browser.context(scheme=scheme)
        page = browser.page(context)
        for name in PAGES:
            browser.open(page, name)
            settle(page, name)
            browser.shot(page, f"{name.replace('/', '-')}-{scheme}", full=name != "api")
        color = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        if scheme == "light":
            day = color
        else:
            assert color != day
            # The button overrules, and is remembered.
            page.get_by_role("button", name="Theme: auto").click()
            assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == day
            page.reload()
            expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
            assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == day
        context.close()
        browser.clean(scheme)
    context = browser.context(375, 812)
    page = browser.page(context)
    for name in PAGES:
        browser.open(page, name)
        settle(page, name)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 375, f"{name} is {width} wide"
        browser.shot(page, f"{name.replace('/', '-')}-mobile", full=name != "api")
    context.close()
    browser.clean("375 px")


def settle(page, name):
    """Until what the page asks for is there."""
    if name == "overview":
        expect(page.locator(".tile").filter(has_text="p50").locator(".value")).to_contain_text("s")
        expect(page.locator(".chart path.line.graph").first).to_have_attribute("d", re.compile("M.*L.*L"))
    elif name == "query":
        page.get_by_label("List size").fill("10")
        page.get_by_label("Point's id", exact=True).fill("42")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator("#answer")).to_be_visible()
    elif name == "recall":
        expect(page.locator("circle.dot.big").first).to_be_visible()
    elif name == "sizing":
        page.get_by_role("button", name="1B").click()
        expect(page.locator("main")).to_contain_text("1 B points of")
    elif name == "api":
        page.locator("details.op").filter(has_text="/promote").locator("summary").first.click()
        expect(page.locator(".code")).to_contain_text("curl")
        assert page.locator("details.op").count() > 50
    elif name == "storage":
        expect(page.get_by_role("region", name="Snapshots of demo")).to_be_visible()


def removals(browser, page):
    browser.open(page, "collections/demo")
    copies = page.get_by_role("region", name="Snapshots of demo").locator("tbody tr")
    copies.first.get_by_role("button", name="Recover").click()
    page.get_by_label("Type demo to confirm").fill("demo")
    page.get_by_role("dialog").get_by_role("button", name="Recover").click()
    expect(page.locator(".toast").filter(has_text="demo is what")).to_be_visible()
    copies.first.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete snapshot").click()
    expect(copies).to_have_count(0)
    page.get_by_role("button", name="Delete collection").click()
    sure = page.get_by_role("dialog").get_by_role("button", name="Delete collection")
    page.get_by_label("Type demo to confirm").fill("dem")
    expect(sure).to_be_disabled()
    page.get_by_label("Type demo to confirm").fill("demo")
    sure.click()
    expect(page.locator("h1")).to_have_text("Collections")
    expect(page.get_by_role("link", name="demo", exact=True)).to_have_count(0)


def data_is_text(browser, server, page):
    """What is stored is shown as it is, and does nothing."""
    evil = "<img src=x onerror=document.title=1>"
    server.ask("PUT", "/collections/demo/points", {"points": [{"id": evil, "vector": [9.0] * DIM, "payload": {"a": evil}}]})
    browser.open(page, "query")
    page.get_by_label("Point's id", exact=True).fill(evil)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#answer code").first).to_have_text(evil)
    page.get_by_role("button", name="Show payloads").click()
    expect(page.locator(".payload").first).to_contain_text("onerror")
    assert page.locator("main img").count() == 0
    server.ask("POST", "/collections/demo/points/delete", {"points": [evil]})


def refusals(browser, server):
    """What the server refuses is said with its words and its number; a browser counts such answers as errors, so nobody counts here."""
    context = browser.context()
    page = context.new_page()
    browser.open(page, "collections")
    page.get_by_label("Name").fill("../x")
    page.get_by_role("button", name="Create collection").click()
    expect(page.locator(".box.bad")).to_contain_text("request_id")
    page.get_by_label("Name").fill(".x")
    page.get_by_role("button", name="Create collection").click()
    expect(page.locator(".box.bad")).to_contain_text("a name is 1 to 200 letters")
    refusal = {"detail": "the key app has the role read, this takes admin", "code": "role", "request_id": "abc-1", "status": {"error": ""}}
    page.route("**/v1/overview", lambda route: route.fulfill(status=403, content_type="application/json", body=json.dumps(refusal)))
    expect(page.locator("#banner")).to_contain_text("Not allowed")
    expect(page.locator("#banner")).to_contain_text("abc-1")
    page.unroute("**/v1/overview")
    expect(page.locator("#banner")).to_be_empty(timeout=WAIT)
    context.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("roxanne")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--pages", type=pathlib.Path)
    given = parser.parse_args()
    expect.set_options(timeout=WAIT)
    if given.screenshots:
        given.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        rows = fill(pathlib.Path(data) / "incoming")
        server = Server(given.roxanne, data)
        try:
            with sync_playwright() as playwright:
                browser = Browser(playwright, server, given.pages, given.screenshots)
                page = browser.page(browser.context())
                create_by_keyboard(browser, page)
                import_points(browser, page)
                search(browser, page, rows)
                data_is_text(browser, server, page)
                measure(browser, page)
                build(browser, page)
                bases(browser, page)
                browser.clean("work")
                load = Load(server, rows)
                try:
                    looks(browser, server)
                finally:
                    load.stop()
                removals(browser, page)
                browser.clean("removals")
                refusals(browser, server)
                browser.browser.close()
        finally:
            server.stop()
    print("the dashboard: well")


if __name__ == "__main__":
    main()
