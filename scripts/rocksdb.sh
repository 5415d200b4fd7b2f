#!/usr/bin/env bash
# Compiles RocksDB, as the crate librocksdb-sys of Cargo.lock brings it, into DIRECTORY/librocksdb.a, in a few large units instead of 343 small
# ones: most of the time goes into headers, so it takes a tenth of what the crate's own build does. The crate links it where ROCKSDB_LIB_DIR
# names it; without that, cargo builds all of it itself.
#
#   scripts/rocksdb.sh DIRECTORY
set -euo pipefail
to=$1
units=6
cxx=${CXX:-c++}
manifest=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "librocksdb-sys"))')
source=$(dirname "$manifest")
stamp="$(basename "$source") $("$cxx" -dumpfullversion) $(sha256sum "$0" | cut -c1-16)"
[ "$(cat "$to/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

work=$to.partial
rm -rf "$work"
mkdir -p "$work"
python3 - "$source" "$work" "$units" <<'END'
import pathlib, sys
source, work, units = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
names = [n for n in (source / "rocksdb_lib_sources.txt").read_text().split() if n != "util/build_version.cc"]
sizes = [(source / "rocksdb" / n).stat().st_size for n in names]
done = 0
for name, size in zip(names, sizes):
    unit = min(units - 1, done * units // sum(sizes))
    with open(work / f"unit{unit}.cc", "a") as file:
        file.write(f'#include "{name}"\n')
    done += size
END
cp "$source/build_version.cc" "$work/version.cc"
# What the crate's build.rs gives for Linux.
flags=(-std=c++20 -O2 -fPIC -ffunction-sections -fdata-sections -w -include cstdint -DNDEBUG -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
    "-I$source/rocksdb/include" "-I$source/rocksdb" "-I$source/rocksdb/third-party/gtest-1.8.1/fused-src" "-I$source")
printf '%s\n' "$work"/*.cc | xargs -P "$(nproc)" -I{} "$cxx" "${flags[@]}" -c {} -o {}.o
ar crs "$work/librocksdb.a" "$work"/*.o
rm "$work"/*.cc "$work"/*.o
echo "$stamp" >"$work/stamp"
rm -rf "$to"
mv "$work" "$to"
