#!/usr/bin/env bash
# Searches over HTTP alone, beside a promotion and beside a rollback: what wrk sees of each, in ten seconds.
#
#   bench/promote.sh ROXANNE BASE.u8bin QUERY.u8bin WORK          needs wrk, curl and python3; WORK is made, and holds about 2 GB
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 2; }
roxanne=$(realpath "$1") base=$(realpath "$2") query=$(realpath "$3") here=$(realpath "$(dirname "$0")")
mkdir "$4" && cd "$4" && mkdir -p data/collections data/incoming
seq 0 199999 >keys.txt
python3 - "$query" <<'P'
import json, sys
raw = open(sys.argv[1], "rb").read()
with open("bodies.txt", "w") as out:
    for i in range(1000):
        out.write(json.dumps({"vector": list(raw[8 + 128 * i : 136 + 128 * i]), "limit": 10}) + "\n")
P
sed 's#/collections/s/#/collections/c/#' "$here/http.lua" >http.lua
"$roxanne" create data/collections/c --dim 128 --element u8 --keys strings --metric l2
"$roxanne" insert data/collections/c "$base" --limit 200000 --keys keys.txt
"$roxanne" merge data/collections/c --rebuild --progress plain
"$roxanne" build "$base" --limit 200000 --keys keys.txt --string-keys --capacity 600000 -o data/incoming/a --progress plain
"$roxanne" serve --data data --bind 127.0.0.1:0 --ram 1G >serve.log &
server=$!
trap 'kill $server' EXIT
until grep -q http serve.log; do sleep 0.1; done
url=$(grep -o 'http://.*' serve.log)
sequence=$(curl -s "$url/v1/collections/c" | python3 -c 'import json, sys; print(json.load(sys.stdin)["result"]["sequence"])')
load() { wrk -t1 -c4 -d"$1" -s http.lua --latency "$url" | grep -E '50%|99%|Requests/sec|Non-2xx|requests in|Socket'; }
load 5 >/dev/null
echo '== searches alone'
load 10
echo '== beside a promotion'
load 10 &
sleep 1
curl -s -X POST "$url/v1/collections/c/promote" -d "{\"index\": \"a\", \"sequence\": $sequence}" >/dev/null
curl -s "$url/v1/jobs/1?wait=60" && echo
wait %2
echo '== beside a rollback, and after it'
load 10 &
sleep 1
curl -s -X POST "$url/v1/collections/c/rollback" >/dev/null
curl -s "$url/v1/jobs/2?wait=60" && echo
wait %2
