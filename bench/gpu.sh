#!/usr/bin/env bash
# Everything that needs a CUDA device, in one run: conformance, compute-sanitizer, equal bytes of a million vectors, bench-gpu.
#
#   bench/gpu.sh BINARIES OUT [STEP...]     steps: facts conformance memcheck racecheck bytes stages builds build100; all of them without one
#
# BINARIES holds `roxanne` and `conformance` (a test binary: cargo test --locked --package roxanne-tests --test conformance --no-run), built,
# for figures with --release, and stripped on another machine if need be. OUT gets a log of each step and bench-gpu's JSON; put them under
# bench/results/. Where one call may last 10 minutes: `facts conformance bytes stages`, then `memcheck racecheck`, then `builds`, then `build100`.
set -uo pipefail

binaries=$(realpath "$1") out=$(realpath "$2")
shift 2
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(facts conformance memcheck racecheck bytes stages builds build100)
failed=0

# Runs a step with a time limit in seconds; what it prints goes to its log.
step() {
    local name=$1 limit=$2
    shift 2
    [[ " ${steps[*]} " == *" $name "* ]] || return 0
    echo "== $name"
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    local code=$?
    tail -n 5 "$out/$name.log"
    [ $code -eq 0 ] || { echo "$name: exit $code"; failed=1; }
}

facts() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.memory --format=csv
    "$binaries/roxanne" doctor
}

conformance() {
    REQUIRE_BACKENDS=cpu,cuda "$binaries/conformance" cuda:: cpu_scalar:: cpu_avx2:: cpu_avx512:: --nocapture --test-threads 8
}

# A clean tool says 0 errors; one small test each, as everything is hundreds of times slower under it.
sanitized() {
    local tool=$1
    for test in assign leaf_knn merge prune encode moves; do
        REQUIRE_BACKENDS=cuda ROXANNE_CASES=small compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$binaries/conformance" --exact "cuda::$test" --nocapture || return
    done
}

# The same index from both, byte for byte: so its recall is the CPU's.
bytes() {
    local place
    place=$(mktemp -d)
    for device in cpu cuda:0; do
        "$binaries/roxanne" build synth:n=1000000,dim=128,type=u8,seed=1 -o "$place/${device%:*}.rx" --device "$device" --json || return
    done
    diff --recursive --brief "$place/cpu.rx" "$place/cuda.rx" && echo "equal bytes"
    local code=$?
    rm -rf "$place"
    return $code
}

stages() { "$binaries/roxanne" bench-gpu --builds none --json >"$out/stages.json"; }
builds() { "$binaries/roxanne" bench-gpu --dims 128 --builds 1000000,10000000 --json >"$out/builds.json"; }
build100() { "$binaries/roxanne" bench-gpu --vectors 100000 --dims 128 --builds 100000000 --json >"$out/build100.json"; }

export -f facts conformance sanitized bytes stages builds build100
export PATH=$PATH:/usr/local/cuda/bin
export binaries out
step facts 60 bash -c facts
step conformance 150 bash -c conformance
step memcheck 270 bash -c 'sanitized memcheck'
step racecheck 270 bash -c 'sanitized racecheck'
step bytes 180 bash -c bytes
step stages 180 bash -c stages
step builds 400 bash -c builds
step build100 560 bash -c build100
exit $failed
