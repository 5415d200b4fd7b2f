#!/usr/bin/env bash
# Indexes vectors, serves them from disk and shows recall against speed. Called by `make demo`, which says how; outputs go to .demo/.
# ROXANNE is the binary; DATA, QUERIES and METRIC may be empty.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${ROXANNE:?is the roxanne binary; run make demo}"

shared=../shared/data/sift1m
sample=tests/data/sift-sample
synth=synth:n=200000,dim=128,type=u8,seed=1
out=.demo
mkdir -p "$out"

# show PREFIX BASE QUERIES METRIC [TRUTH]: an index, its truth where none is given, its table, and its plot.
show() {
    local index=$out/$1index.rx truth=${5:-$out/$1truth.bin} plot=$out/$1recall.svg
    # What an earlier demo made, perhaps of other data.
    rm -rf "$index" "$out/$1truth.bin" "$plot"
    printf '\n-- index %s\n' "$2"
    "$ROXANNE" build "$2" -o "$index" --metric "$4"
    if [[ -z ${5:-} ]]; then
        printf -- '-- exact neighbors of %s\n' "$3"
        "$ROXANNE" truth "$2" "$3" -k 100 --metric "$4" -o "$truth"
    fi
    printf -- '-- recall and speed, from disk, with cold caches\n'
    "$ROXANNE" eval "$index" -q "$3" -g "$truth" -k 10 --sweep list-size=16,32,64,128 --threads 2 --cold --plot "$plot"
    printf -- '-- the plot: %s\n' "$plot"
}

if [[ -n ${DATA:-} ]]; then
    queries=${QUERIES:-}
    if [[ -z $queries && $DATA == synth:* ]]; then
        queries=$DATA,n=1000,part=query
    elif [[ -z $queries ]]; then
        # Without queries of their own, the first rows ask; each finds itself, so recall comes out a little better than it is.
        queries=$out/queries.${DATA##*.}
        rm -f "$queries"
        "$ROXANNE" convert "$DATA" "$queries" --limit 1000
        echo "No QUERIES given: the first 1,000 rows of $DATA ask, each of which finds itself."
    fi
    show '' "$DATA" "$queries" "${METRIC:-l2}"
elif [[ -e $shared.base.u8bin ]]; then
    show '' "$shared.base.u8bin" "$shared.query.u8bin" l2 "$shared.truth.bin"
else
    show sample- "$sample.base.u8bin" "$sample.query.u8bin" l2
    show '' "$synth" "$synth,n=1000,part=query" l2
fi
