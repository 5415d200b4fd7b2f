#!/bin/sh
# The nightly rebuild: a new index from yesterday's base and what has changed since, checked before anything serves it.
#
# It may run twice, be killed at any place and run again: an index is under its name only when it is whole, `current` is moved by one
# rename and only to an index that was verified and has the recall it must have, and what was kept before is removed last.
#
# Settings, from the environment:
#   BASE BASE_KEYS   the vectors and their keys
#   CHANGES          a directory of changed vectors, each beside its keys: 2026-11-25.u8bin and 2026-11-25.keys; in order of their names
#   DELETED          a file of deleted keys, one a line (may be absent)
#   QUERIES          a sample of queries, for the recall probe
#   INDEXES          the directory that holds the indexes and the link `current`
#   NAME             of the new index; the date (UTC) without it
#   MIN_RECALL       recall@10 that it must reach at LIST_SIZE (0.95 at 64)
#   KEEP             how many indexes stay (7)
#   METRIC RAM DISK SHARDS DEVICE PROGRESS    as `roxanne build` takes them
#
# Exit codes are those of roxanne: 0 done (or done already), 2 called wrongly, 3 bad input, 4 does not fit the budget, 5 a check said no,
# 6 corruption, 7 busy or no space, 8 device not available, 130 stopped. After 7, 8 and 130 it is worth trying again; a build of shards then
# goes on where it was stopped.
set -eu

: "${BASE:?the vectors}" "${BASE_KEYS:?their keys}" "${QUERIES:?queries for the recall probe}" "${INDEXES:?where indexes are kept}"
roxanne=${ROXANNE:-roxanne}
name=${NAME:-$(date -u +%Y-%m-%d)}
metric=${METRIC:-l2}
index=$INDEXES/$name.rx
truth=$INDEXES/.$name.truth.bin

say() { echo "nightly: $*" >&2; }

# A stop is passed on to the command that runs, which clears away or keeps its checkpoint, and ends the job with its code.
child=
stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :' TERM INT HUP
run() {
    [ -z "$stopped" ] || exit 130
    "$@" &
    child=$!
    code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code=$?
    done
    child=
    [ -z "$stopped" ] || code=130
    return "$code"
}

# One job at a time; the lock goes with the process that holds it. Commands do not inherit it.
mkdir -p "$INDEXES"
exec 9>"$INDEXES/.lock"
flock -n 9 || { say "another run holds $INDEXES/.lock"; exit 7; }

# What a killed run left half removed or half linked, and builds of other nights that nobody works on any more.
rm -rf "$INDEXES"/.gone.* "$INDEXES"/.current.* "$INDEXES"/.*.truth.bin
for partial in "$INDEXES"/.*.rx.partial; do
    if [ -e "$partial/LOCK" ] && [ "$partial" != "$INDEXES/.$name.rx.partial" ]; then
        flock -n "$partial/LOCK" rm -rf "$partial" || say "$partial: another build is writing there"
    fi
done

if [ "$(readlink "$INDEXES/current" 2>/dev/null)" = "$name.rx" ]; then
    say "$index is current already"
    exit 0
fi

# The input: the same words for every command that reads it.
set -- --keys "$BASE_KEYS"
for keys in "${CHANGES:-/nonexistent}"/*.keys; do
    [ -e "$keys" ] || continue
    vectors=
    for file in "${keys%.keys}".*; do
        [ "$file" = "$keys" ] || vectors=$file
    done
    [ -n "$vectors" ] || { say "$keys: no vectors beside it"; exit 3; }
    set -- "$@" --changes "$vectors:$keys"
done
if [ -e "${DELETED:-/nonexistent}" ]; then
    set -- "$@" --deleted "$DELETED"
fi

run "$roxanne" build "$BASE" "$@" --output "$index" --metric "$metric" \
    ${RAM:+--ram "$RAM"} ${DISK:+--disk "$DISK"} ${SHARDS:+--shards "$SHARDS"} ${DEVICE:+--device "$DEVICE"} ${PROGRESS:+--progress "$PROGRESS"} 9>&-

# Every byte, every neighbor, and the recall of a sample of queries against their exact neighbors.
refuse() {
    code=$?
    # Only what was found wanting is put aside: a check that could not be made says nothing of the index.
    rm -f "$truth"
    case $code in
    5 | 6)
        rm -rf "$INDEXES/$name.rejected"
        mv -T "$index" "$INDEXES/$name.rejected"
        say "$index was refused and put aside as $name.rejected; current is what it was" ;;
    esac
    exit "$code"
}
run "$roxanne" verify "$index" 9>&- || refuse
run "$roxanne" truth "$BASE" "$QUERIES" "$@" -k 10 --output "$truth" --metric "$metric" 9>&-
run "$roxanne" eval "$index" --queries "$QUERIES" --truth "$truth" "$@" -k 10 --sweep "${LIST_SIZE:-64}" --min-recall "${MIN_RECALL:-0.95}" 9>&- || refuse
rm -f "$truth"

# A rename is seen by readers as a whole, or not yet.
ln -s "$name.rx" "$INDEXES/.current.$name"
mv -T "$INDEXES/.current.$name" "$INDEXES/current"
sync "$INDEXES" 2>/dev/null || sync
say "$index is current"

# The oldest go, by name, but never the current one. Out of sight first: a killed removal leaves nothing that looks like an index.
count=$(find "$INDEXES" -maxdepth 1 -name '*.rx' -type d | wc -l)
find "$INDEXES" -maxdepth 1 -name '*.rx' -type d | sort | while read -r old && [ "$count" -gt "${KEEP:-7}" ]; do
    [ "$old" != "$index" ] || continue
    count=$((count - 1))
    mv -T "$old" "$INDEXES/.gone.$(basename "$old")"
    rm -rf "$INDEXES/.gone.$(basename "$old")"
    say "$old removed"
done
