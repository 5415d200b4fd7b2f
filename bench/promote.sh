#!/usr/bin/env bash
# Searches over HTTP alone, beside a promotion and beside a rollback, in every mode: what wrk sees of each, from a second before it begins to a second after its
# end, and the memory of the server that is no file's, sampled. One connection, which leaves one core of two to others; CONNECTIONS=4 takes all, and the job minutes.
#
#   bench/promote.sh ROXANNE BASE.u8bin QUERY.u8bin WORK [ROWS]          needs wrk and python3; WORK is made, and holds about 10 KB a row; MODES="overlap half drain"
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 2; }
roxanne=$(realpath "$1") base=$(realpath "$2") query=$(realpath "$3") here=$(realpath "$(dirname "$0")") rows=${5:-200000}
mkdir "$4" && cd "$4" && mkdir -p data/collections data/incoming
seq 0 $((rows - 1)) >keys.txt
python3 - "$query" <<'P'
import json, sys
raw = open(sys.argv[1], "rb").read()
with open("bodies.txt", "w") as out:
    for i in range(1000):
        out.write(json.dumps({"vector": list(raw[8 + 128 * i : 136 + 128 * i]), "limit": 10}) + "\n")
P
sed 's#/collections/s/#/collections/c/#' "$here/http.lua" >http.lua
echo "$(date -u +%F), $(git -C "$here" rev-parse HEAD)$(git -C "$here" diff --quiet HEAD || echo -dirty), $rows rows, $(nproc) cores"
"$roxanne" create data/collections/c --dim 128 --element u8 --keys strings --metric l2
"$roxanne" insert data/collections/c "$base" --limit "$rows" --keys keys.txt --delta-ram 4G >/dev/null
"$roxanne" merge data/collections/c --rebuild --progress plain 2>/dev/null
"$roxanne" build "$base" --limit "$rows" --keys keys.txt --string-keys --capacity $((3 * rows)) -o built --progress plain 2>/dev/null >/dev/null
"$roxanne" serve --data data --bind 127.0.0.1:0 --ram 2G --log-level error >serve.log &
server=$!
trap 'kill $server' EXIT
until grep -q http serve.log; do sleep 0.1; done
url=$(grep -o 'http://.*' serve.log)
# One process for all that is not the server's, there before the load: one that began beside it would take the cores from both.
cat >beside.py <<'P'
import json, signal, subprocess, sys, threading, time, urllib.request
url, pid, seconds, connections, what, body = sys.argv[1:]
def call(path, body=None):
    request = urllib.request.Request(url + path, body and json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["result"]
most, stop = 0, threading.Event()
def watch(): # anonymous memory
    global most
    with open(f"/proc/{pid}/status") as status:
        while not stop.wait(0.02):
            status.seek(0)
            most = max(most, next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
body, collection = json.loads(body), call("/v1/collections/c")
if what == "promote":
    body["sequence"] = collection["sequence"]
watching = threading.Thread(target=watch)
watching.start()
# Beside a job the load lasts as long as that does.
seconds = seconds if what == "alone" else "300"
load = subprocess.Popen(["wrk", "-t1", "-c" + connections, "-d" + seconds, "-s", "http.lua", "--latency", url], stdout=subprocess.PIPE, text=True)
if what != "alone":
    time.sleep(1)
    begin = time.monotonic()
    job = call("/v1/collections/c/" + what, body)["id"]
    while (state := call(f"/v1/jobs/{job}?wait=60"))["state"] not in ("done", "failed", "cancelled"):
        pass
    print(f"    {what} {state['state']} {state['error'] or ''} after {time.monotonic() - begin:.2f} s")
    time.sleep(1)
    load.send_signal(signal.SIGINT)
told = load.communicate()[0]
stop.set()
watching.join()
print(f"    anonymous memory at most {most >> 10} MiB")
print("\n".join(line for line in told.splitlines() if any(word in line for word in ("  50%", "  99%", "Requests/sec", "Non-2xx", "requests in", "Socket"))))
P
beside() { # WHAT TOLD BODY
    echo "== $2"
    python3 beside.py "$url" $server 10 "${CONNECTIONS:-1}" "$1" "$3"
}
wrk -t1 -c4 -d5 -s http.lua "$url" >/dev/null
for mode in ${MODES:-overlap half drain}; do
    beside alone alone '{}'
    cp -r built data/incoming/$mode
    beside promote "$mode: a promotion" "{\"index\": \"$mode\", \"mode\": \"$mode\", \"drain_seconds\": 1}"
    beside rollback "$mode: a rollback" "{\"mode\": \"$mode\", \"drain_seconds\": 1}"
done
