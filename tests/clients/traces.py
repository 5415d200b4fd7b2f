"""Traces of requests as a collector of OpenTelemetry takes them. python3 traces.py ROXANNE

The collector is one of Python's servers and OpenTelemetry's own messages: what it reads, others read.
"""

import http.server
import json
import socket
import sys
import tempfile
import threading
import urllib.request

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from serving import serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(http.server.BaseHTTPRequestHandler):
    spans = []
    services = set()

    def do_POST(self):
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf"), (self.path, dict(self.headers))
        batch = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in batch.resource_spans:
            self.services.update(pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name")
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def ask(url, method, path, body, **headers):
    headers = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, data=json.dumps(body).encode(), method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["result"]


def works(url):
    ask(url, "PUT", "/collections/c", {"vectors": {"size": 4, "distance": "Euclid"}})
    points = [{"id": n, "vector": [n, 0, 0, 0], "payload": {"n": n}} for n in range(10)]
    ask(url, "PUT", "/collections/c/points", {"points": points})
    search = {"query": [3, 0, 0, 0], "limit": 2}
    ask(url, "POST", "/collections/c/points/query", search, traceparent=f"00-{TRACE}-{PARENT}-01")
    # With a filter it goes to another thread, and is of its request still.
    ask(url, "POST", "/collections/c/points/query", search | {"filter": {"must": [{"key": "n", "match": {"value": 3}}]}}, x_request_id="filtered")


def attributes(span):
    kinds = {"string_value", "int_value"}
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes if pair.value.WhichOneof("value") in kinds}


def main(roxanne):
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as data, serving(roxanne, data, "--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}") as url:
        works(url)
    # The end of the server has sent what was left.
    spans = {span.span_id: span for span in Collector.spans}
    assert Collector.services == {"roxanne"}, Collector.services
    requests = [span for span in spans.values() if span.name != "search"]
    named = {(span.name, attributes(span)["http.response.status_code"]) for span in requests}
    query = "POST /collections/{collection}/points/query"
    assert named == {("PUT /collections/{collection}", 200), ("PUT /collections/{collection}/points", 200), (query, 200)}, named
    followed = [span for span in requests if span.trace_id.hex() == TRACE]
    assert [(span.name, span.parent_span_id.hex()) for span in followed] == [(query, PARENT)], followed
    searches = [span for span in spans.values() if span.name == "search"]
    assert [spans[span.parent_span_id].name for span in searches] == [query, query], searches
    plans = {attributes(spans[span.parent_span_id])["request_id"]: attributes(span)["plan"] for span in searches}
    assert plans["filtered"] == "filtered" and sorted(plans.values()) == ["filtered", "graph"], plans
    assert all(attributes(span)["k"] == 2 and span.start_time_unix_nano < span.end_time_unix_nano for span in searches)
    collector.shutdown()
    # Nobody listens: requests are answered as ever, and the server ends as ever.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with tempfile.TemporaryDirectory() as data, serving(roxanne, data, "--otlp-endpoint", f"http://127.0.0.1:{nobody.getsockname()[1]}") as url:
            works(url)
    print(f"traces: {len(requests)} requests and {len(searches)} searches in them, one of a caller's trace")


main(sys.argv[1])
