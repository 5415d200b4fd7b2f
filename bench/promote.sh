#!/usr/bin/env bash
# Searches over HTTP alone, beside a promotion and beside a rollback, in every mode: what wrk sees of each in ten seconds, and the memory of the server that is
# no file's, sampled.
#
#   bench/promote.sh ROXANNE BASE.u8bin QUERY.u8bin WORK [ROWS]          needs wrk, curl and python3; WORK is made, and holds about 10 KB a row
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
sequence() { curl -s "$url/v1/collections/c" | python3 -c 'import json, sys; print(json.load(sys.stdin)["result"]["sequence"])'; }
memory() { # the most anonymous memory, in MiB, until `stop` is there
    python3 - $server "$1" <<'P'
import os, sys, time
most = 0
while not os.path.exists(sys.argv[2]):
    lines = open(f"/proc/{sys.argv[1]}/status").read().splitlines()
    most = max(most, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
    time.sleep(0.01)
print(f"    anonymous memory at most {most >> 10} MiB")
P
}
load() { wrk -t1 -c4 -d"$1" -s http.lua --latency "$url" | grep -E '50%|99%|Requests/sec|Non-2xx|requests in|Socket'; }
beside() { # WHAT PATH BODY
    echo "== $1"
    rm -f stop
    load 10 >told &
    local loading=$!
    memory stop &
    local watching=$!
    sleep 1
    job=$(curl -s "$url/v1/collections/c/$2" --json "$3" | python3 -c 'import json, sys; print(json.load(sys.stdin)["result"]["id"])')
    curl -s "$url/v1/jobs/$job?wait=60" | python3 -c 'import json, sys; job = json.load(sys.stdin)["result"]; print("   ", job["kind"], job["state"], job["error"] or "")'
    wait $loading
    touch stop
    wait $watching
    cat told
}
load 5 >/dev/null
for mode in overlap half drain; do
    echo "== alone"
    rm -f stop; touch stop; memory never & watching=$!; load 10; touch never; wait $watching; rm never
    cp -r built data/incoming/$mode
    beside "$mode: a promotion" promote "{\"index\": \"$mode\", \"sequence\": $(sequence), \"mode\": \"$mode\", \"drain_seconds\": 1}"
    beside "$mode: a rollback" rollback "{\"mode\": \"$mode\", \"drain_seconds\": 1}"
done
