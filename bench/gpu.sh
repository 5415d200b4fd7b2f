#!/usr/bin/env bash
# Everything that needs a CUDA device, in one run: conformance, compute-sanitizer, equal bytes of a million vectors, bench-gpu.
#
#   bench/gpu.sh BINARIES OUT [STEP...]     steps: facts conformance memcheck racecheck bytes stages builds build100
#
# Without a step: the first six, which end within 10 minutes. `builds` (10M vectors) and `build100` (100M) are calls of their own: with the
# first ones they may pass what a borrowed device is lent for.
#
# All that runs is carried, the driver and nvidia-smi are the machine's. BINARIES holds `roxanne` and `conformance` (a test binary:
# cargo test --locked --package roxanne-tests --test conformance --no-run), built, for figures with --release, and stripped on another
# machine if need be; and, where the machine has no CUDA toolkit, a folder `compute-sanitizer` with the tool and what it loads (the folder of
# that name in the wheel nvidia-cuda-sanitizer-api). OUT gets a log of each step and bench-gpu's JSON; put them under bench/results/.
set -uo pipefail

[ $# -ge 2 ] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 2; }
mkdir -p "$2"
binaries=$(realpath "$1") out=$(realpath "$2")
shift 2
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(facts conformance memcheck racecheck bytes stages)
failed=0

# Runs a step with a time limit in seconds; what it prints goes to its log.
step() {
    local name=$1 limit=$2
    shift 2
    [[ " ${steps[*]} " == *" $name "* ]] || return 0
    echo "== $name"
    timeout "$limit" bash -c "$*" >"$out/$name.log" 2>&1
    local code=$?
    tail -n 5 "$out/$name.log"
    [ $code -eq 0 ] || { echo "$name: exit $code"; failed=1; }
}

facts() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.memory --format=csv
    "$binaries/roxanne" doctor
}

# That no test has a name is no success.
conformance() {
    REQUIRE_BACKENDS=cpu,cuda "$binaries/conformance" cuda:: cpu_scalar:: cpu_avx2:: cpu_avx512:: --nocapture --test-threads 8 |
        tee "$out/conformance.all"
    [ "${PIPESTATUS[0]}" -eq 0 ] && grep -Eq ' [1-9][0-9]+ passed; 0 failed' "$out/conformance.all"
}

# One test under a tool, in its small form, as everything is hundreds of times slower there. The tool's own sum must be there and be zero.
sanitized_one() {
    local tool=$1 test=$2 log=$out/$1.$2.all
    REQUIRE_BACKENDS=cuda ROXANNE_CASES=small compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "$binaries/conformance" --exact "cuda::$test" --nocapture >"$log" 2>&1
    local code=$?
    tail -n 3 "$log"
    [ $code -eq 0 ] && grep -q ' 1 passed; 0 failed' "$log" && grep -Eq 'SUMMARY: 0 (errors|hazards)' "$log"
}

# The tests side by side: the tool's work is mostly the host's.
sanitized() {
    local tool=$1 test code=0 running=()
    command -v compute-sanitizer || { echo "no compute-sanitizer: carry it in $binaries/compute-sanitizer"; return 1; }
    for test in assign leaf_knn merge prune encode moves; do
        sanitized_one "$tool" "$test" &
        running+=($!)
    done
    for one in "${running[@]}"; do wait "$one" || code=1; done
    return $code
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

stages() { "$binaries/roxanne" bench-gpu --builds 1000000 --json >"$out/stages.json"; }
builds() { "$binaries/roxanne" bench-gpu --vectors 100000 --dims 128 --builds 10000000 --json >"$out/builds.json"; }
build100() { "$binaries/roxanne" bench-gpu --vectors 100000 --dims 128 --builds 100000000 --json >"$out/build100.json"; }

export -f facts conformance sanitized sanitized_one bytes stages builds build100
export PATH=$binaries/compute-sanitizer:$PATH:/usr/local/cuda/bin
export binaries out
step facts 30 facts
step conformance 120 conformance
step memcheck 110 sanitized memcheck
step racecheck 110 sanitized racecheck
step bytes 90 bytes
step stages 130 stages
step builds 300 builds
step build100 560 build100
exit $failed
