#!/usr/bin/env python3
"""Kernels to images: every kernels/*.cu becomes PTX and cubins under built/, ahead of time, so that a user needs the driver alone.

    compile.py build    compile everything and write built/            (make kernels)
    compile.py check    compile everything and compare with built/     (make test)
    compile.py list     the entries and the widths of their arguments

built/ holds one image a stem and target, packed with zlib: STEM.compute_NN.ptx.zlib, STEM.sm_NN.cubin.zlib. `manifest.json` says what each
was made of, and by what; `images.rs`, which the builder includes, and `RESOURCES.md`, for readers, are made of the manifest alone.

The compiler is NVRTC, a library, from the wheel that requirements.txt pins; no GPU and no CUDA toolkit is needed. Sources and headers are
handed to it from memory under their bare names, so that no path and no date can reach an image: equal sources give equal bytes.
"""

import argparse
import concurrent.futures
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import sys
import time
import zlib

WHEEL = "nvidia-cuda-nvrtc-cu12"
PTX_TARGETS = ("compute_75", "compute_80")
CUBIN_TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90")
# Assembled, looked at and thrown away: PTX alone does not show whether the variant for older cards assembles, nor what it spills.
ASSEMBLED_TARGETS = ("sm_75",)
CHIPS = ASSEMBLED_TARGETS + CUBIN_TARGETS
# __NV_TARGET_H keeps out a header that NVRTC includes by itself: 4 KB of unused names an image.
OPTIONS = ("--std=c++17", "--no-source-include", "--define-macro=__NV_TARGET_H")
# What makes the assembler tell registers and spills; it changes no byte of the image.
CUBIN_OPTIONS = ("--ptxas-options=-v",)
# Stems that live from keeping their lists and tiles in registers.
MUST_NOT_SPILL = ("assign", "leaf_knn", "prune")
# A file in the repository stays below this.
MOST_FILE_BYTES = 1 << 20


class Failure(Exception):
    """What is wrong and how to mend it."""


# -- Sources


def included(name, texts):
    """`name` and all headers of `texts` that it includes, directly or through others."""
    found = []
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.append(name)
        names = re.findall(rb'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', texts[name], re.MULTILINE)
        waiting += [each.decode() for each in names if each.decode() in texts]
    return sorted(found)


def read_sources(folder):
    """Stem -> {file name: content}, the .cu itself and the headers it is made of."""
    texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".cu", ".cuh")}
    return {
        name.removesuffix(".cu"): {each: texts[each] for each in included(name, texts)} for name in sorted(texts) if name.endswith(".cu")
    }


# -- The compiler


def load_nvrtc():
    """The library of the installed wheel."""
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations if package else ():
        path = pathlib.Path(folder, "cuda_nvrtc", "lib", "libnvrtc.so.12")
        if path.exists():
            return ctypes.CDLL(str(path))
    raise Failure(f"{WHEEL} is not installed for this Python: run `make kernels`, which installs requirements.txt and uses it")


def call(nvrtc, name, *arguments):
    if code := getattr(nvrtc, name)(*arguments):
        raise Failure(f"{name} failed with NVRTC error {code}")


def answer(nvrtc, program, what):
    """The bytes that nvrtcGet`what` gives for a program, of the size that nvrtcGet`what`Size gives."""
    size = ctypes.c_size_t()
    call(nvrtc, f"nvrtcGet{what}Size", program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    call(nvrtc, f"nvrtcGet{what}", program, content)
    return content.raw


def compile_image(stem, target, sources):
    """One stem for one target: (stem, target, image, log, seconds). Runs in a process of its own."""
    begun = time.monotonic()
    nvrtc = load_nvrtc()
    headers = [(name, text) for name, text in sources.items() if name != f"{stem}.cu"]
    pointers = ctypes.c_char_p * len(headers)
    program = ctypes.c_void_p()
    call(
        nvrtc,
        "nvrtcCreateProgram",
        ctypes.byref(program),
        sources[f"{stem}.cu"],
        f"{stem}.cu".encode(),
        len(headers),
        pointers(*(text for _, text in headers)),
        pointers(*(name.encode() for name, _ in headers)),
    )
    options = [option.encode() for option in options_of(target)]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = answer(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
    if failed:
        raise Failure(f"{stem}.cu does not compile for {target}:\n{log}")
    image = answer(nvrtc, program, "PTX").rstrip(b"\0") if target in PTX_TARGETS else answer(nvrtc, program, "CUBIN")
    call(nvrtc, "nvrtcDestroyProgram", ctypes.byref(program))
    return stem, target, image, log, time.monotonic() - begun


def options_of(target):
    return (f"--gpu-architecture={target}", *OPTIONS, *(CUBIN_OPTIONS if target in CHIPS else ()))


def compile_all(stems, tell):
    """{(stem, target): (image, log)}; the longest sources go first, so that no core idles at the end."""
    jobs = [(stem, target) for stem in stems for target in PTX_TARGETS + CHIPS]
    jobs.sort(key=lambda job: (-sum(map(len, stems[job[0]].values())), job[1] in PTX_TARGETS))
    made = {}
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        try:
            for done in concurrent.futures.as_completed([pool.submit(compile_image, *job, stems[job[0]]) for job in jobs]):
                stem, target, image, log, seconds = done.result()
                made[stem, target] = (image, log)
                tell(f"{image_name(stem, target):32} {len(image):9,} bytes {seconds:6.1f} s")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return made


# -- What an image tells


def entries_of(ptx):
    """Entry -> bytes of each of its arguments, read from the declarations in PTX."""
    entries = {}
    for name, parameters in re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", ptx.decode()):
        types = re.findall(r"\.param (.*) \w+(?=,|\s*$)", parameters, re.MULTILINE)
        if not all(re.fullmatch(r"\.[usb](32|64)", each) for each in types):
            raise Failure(f"{name}: arguments are pointers, u32 and u64 (README.md), not {types}")
        entries[name] = [int(each[2:]) // 8 for each in types]
    return dict(sorted(entries.items()))


def resources_of(log):
    """Function -> registers, shared memory, stack and spills, as the assembler's log tells them. Functions that an entry calls come too."""
    found = {}
    for line in log.splitlines():
        if match := re.search(r"Function properties for (\S+)", line):
            function = found.setdefault(match[1], {"registers": 0, "shared": 0, "stack": 0, "spill_stores": 0, "spill_loads": 0})
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            function["stack"], function["spill_stores"], function["spill_loads"] = map(int, match.groups())
        elif match := re.search(r"Used (\d+) registers", line):
            function["registers"] = int(match[1])
            shared = re.search(r"(\d+) bytes smem", line)
            function["shared"] = int(shared[1]) if shared else 0
    return dict(sorted(found.items()))


def warnings_of(log):
    return "\n".join(line for line in log.splitlines() if not line.startswith("ptxas") and line.strip())


def image_name(stem, target):
    return f"{stem}.{target}.{'ptx' if target in PTX_TARGETS else 'cubin'}"


def digest(content):
    return hashlib.sha256(content).hexdigest()


def manifest_of(stems, made):
    """What built/manifest.json says, all of it a function of the sources and the compiler."""
    described = {}
    for stem, sources in stems.items():
        entries = {target: entries_of(made[stem, target][0]) for target in PTX_TARGETS}
        resources = {target: resources_of(made[stem, target][1]) for target in CHIPS}
        first = entries[PTX_TARGETS[0]]
        for target in PTX_TARGETS:
            if entries[target] != first:
                raise Failure(f"{stem}.cu: the entries of {target} are not those of {PTX_TARGETS[0]}")
        for target in CHIPS:
            if missing := first.keys() - resources[target].keys():
                raise Failure(f"{stem}.cu: {target} lacks {', '.join(sorted(missing))}")
        if stem in MUST_NOT_SPILL:
            for target, functions in resources.items():
                for name, used in functions.items():
                    if used["spill_stores"] or used["spill_loads"]:
                        raise Failure(f"{name} spills registers on {target} ({used}): {stem} must not; give it fewer live values a thread")
        described[stem] = {
            "sources": {name: digest(text) for name, text in sources.items()},
            "entries": first,
            "images": {
                image_name(stem, target): {"bytes": len(made[stem, target][0]), "sha256": digest(made[stem, target][0])}
                for target in PTX_TARGETS + CUBIN_TARGETS
            },
            "resources": resources,
        }
    return {
        "compiler": f"{WHEEL} {importlib.metadata.version(WHEEL)}",
        "options": {target: options_of(target) for target in PTX_TARGETS + CHIPS},
        "stems": described,
    }


# -- Files of the manifest


def render_json(value, depth=0):
    """JSON with one line a leaf object, so that a change of one kernel is a change of few lines."""
    if isinstance(value, dict) and any(isinstance(each, (dict, list, tuple)) for each in value.values()):
        inside = ",\n".join(f'{" " * (depth + 1)}{json.dumps(key)}: {render_json(each, depth + 1)}' for key, each in value.items())
        return f'{{\n{inside}\n{" " * depth}}}'
    return json.dumps(value)


def render_rust(manifest):
    """The table that builder/src/backend/cuda/images.rs includes."""
    lines = ["// Written by kernels/compile.py: the images, and the bytes of each argument of each entry."]
    lines += ["", "static IMAGES: &[Image] = &["]
    for stem, told in manifest["stems"].items():
        for name, image in told["images"].items():
            kind, number = name.removeprefix(f"{stem}.").split(".")[0].split("_")
            target = f"{'Ptx' if kind == 'compute' else 'Cubin'}({number[:-1]}, {number[-1]})"
            packed = f'include_bytes!("{name}.zlib")'
            lines.append(f'    Image {{ stem: "{stem}", target: Target::{target}, bytes: {image["bytes"]}, packed: {packed} }},')
    lines += ["];", "", "static ENTRIES: &[Entry] = &["]
    for stem, told in manifest["stems"].items():
        for name, widths in told["entries"].items():
            lines.append(f'    Entry {{ stem: "{stem}", name: "{name}", widths: &{widths} }},')
    return "\n".join(lines + ["];", ""])


def render_resources(manifest):
    """The table of registers, memory and spills."""
    lines = ["# What each kernel takes", ""]
    lines += [f"Written by `compile.py` from what the assembler of {manifest['compiler']} says. Registers are a thread's; `shared` is"]
    lines += ["the fixed part of a block's shared memory in bytes, to which a launch may add. `stack` and `spill` (bytes stored/loaded"]
    lines += [f"by a thread) are told only where there are any. No image is shipped for {', '.join(ASSEMBLED_TARGETS)}: such chips take"]
    lines += ["the PTX, which says nothing of either.", ""]
    for stem, told in manifest["stems"].items():
        lines += [f"## {stem}", "", f"| entry | {' | '.join(CHIPS)} |", f"|---|{'---|' * len(CHIPS)}"]
        for name in sorted(set().union(*told["resources"].values())):
            cells = [render_used(told["resources"][target].get(name)) for target in CHIPS]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def render_used(used):
    if used is None:
        return "-"
    told = [f"{used['registers']} registers", f"{used['shared']:,} shared"]
    told += [f"{used['stack']:,} stack"] if used["stack"] else []
    told += [f"{used['spill_stores']:,}/{used['spill_loads']:,} spill"] if used["spill_stores"] or used["spill_loads"] else []
    return ", ".join(told)


def texts_of(manifest):
    """The files beside the images."""
    texts = {"manifest.json": render_json(manifest) + "\n", "images.rs": render_rust(manifest), "RESOURCES.md": render_resources(manifest)}
    return {name: text.encode() for name, text in texts.items()}


# -- Verbs


def unpacked(path):
    """What a packed image holds; None where it is missing or no such thing."""
    try:
        return zlib.decompress(path.read_bytes())
    except (OSError, zlib.error):
        return None


def compiled(folder, tell):
    """The manifest and {image name: image}, from the sources of today."""
    load_nvrtc()
    stems = read_sources(folder)
    made = compile_all(stems, tell)
    for stem in stems:
        if told := warnings_of(made[stem, CUBIN_TARGETS[-1]][1]):
            print(told, file=sys.stderr)
    shipped = {image_name(*job): image for job, (image, _) in made.items() if job[1] not in ASSEMBLED_TARGETS}
    return manifest_of(stems, made), shipped


def build(folder):
    manifest, images = compiled(folder, print)
    built = folder / "built"
    built.mkdir(exist_ok=True)
    keep = {f"{name}.zlib" for name in images} | texts_of(manifest).keys()
    for path in built.iterdir():
        if path.name not in keep:
            path.unlink()
    for name, image in images.items():
        path = built / f"{name}.zlib"
        # Another zlib packs otherwise: what holds the right image is left alone.
        if unpacked(path) != image:
            path.write_bytes(zlib.compress(image, 9))
        if path.stat().st_size >= MOST_FILE_BYTES:
            raise Failure(f"{path.name} has {path.stat().st_size:,} bytes, more than {MOST_FILE_BYTES:,}: let its stem have fewer entries")
    for name, text in texts_of(manifest).items():
        (built / name).write_bytes(text)
    packed = sum((built / f"{name}.zlib").stat().st_size for name in images)
    print(f"{len(images)} images, {sum(map(len, images.values())):,} bytes, packed {packed:,}")


def differences(folder, manifest, images):
    """What of built/ is not what `manifest` says, or not `images` where they are known."""
    built = folder / "built"
    expected = {f"{name}.zlib": image for told in manifest["stems"].values() for name, image in told["images"].items()}
    for name, image in expected.items():
        there = unpacked(built / name)
        if there is None:
            yield f"built/{name} is missing or damaged"
        elif digest(there) != image["sha256"] or images.get(name.removesuffix(".zlib"), there) != there:
            yield f"built/{name} is another image"
    texts = texts_of(manifest)
    for name, text in texts.items():
        if not (built / name).exists() or (built / name).read_bytes() != text:
            yield f"built/{name} is another text"
    for path in sorted(built.iterdir()) if built.exists() else ():
        if path.name not in expected.keys() | texts.keys():
            yield f"built/{path.name} is made of no source"


def changed_sources(folder, committed):
    """Sources that are not those of a manifest."""
    now = {stem: {name: digest(text) for name, text in sources.items()} for stem, sources in read_sources(folder).items()}
    then = {stem: told["sources"] for stem, told in committed["stems"].items()}
    for stem in sorted(now.keys() | then.keys()):
        for name in sorted(now.get(stem, {}).items() ^ then.get(stem, {}).items()):
            yield f"{name[0]}, a source of {stem}, is not what built/ was made of"


def digest_of_all(folder):
    """What a check depends on: sources, images, this program and the compiler."""
    files = [path for path in (*folder.iterdir(), *(folder / "built").iterdir()) if path.is_file()]
    return digest("".join(f"{path.relative_to(folder)} {digest(path.read_bytes())}\n" for path in sorted(files)).encode())


def check(folder, without_compiler, passed):
    committed = read_manifest(folder)
    state = f"{digest_of_all(folder)} {digest(pathlib.Path(__file__).read_bytes())} {without_compiler}"
    if passed and passed.exists() and passed.read_text() == state:
        print("kernels/built is what it was when last it was checked, and so are the sources")
        return
    found = sorted(set(changed_sources(folder, committed)))
    if without_compiler:
        found += differences(folder, committed, {})
    else:
        manifest, images = compiled(folder, tell=lambda _: None)
        if manifest["compiler"] != committed["compiler"]:
            raise Failure(f"this is {manifest['compiler']}, built/ was made by {committed['compiler']}: install requirements.txt")
        found += differences(folder, manifest, images)
    if found:
        raise Failure("\n".join([*found, "run `make kernels` and commit kernels/built"]))
    if passed:
        passed.write_text(state)
    print(f"kernels/built is what the sources give{' (by its hashes; nothing was compiled)' if without_compiler else ''}")


def read_manifest(folder):
    try:
        return json.loads((folder / "built" / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise Failure(f"built/manifest.json cannot be read ({error}): run `make kernels`") from error


def list_entries(folder):
    for stem, told in read_manifest(folder)["stems"].items():
        for name, widths in told["entries"].items():
            print(f"{stem:12} {name}({', '.join(f'{8 * width}' for width in widths)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("build", "check", "list"))
    parser.add_argument("--kernels", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent, help="folder of the sources")
    parser.add_argument("--without-compiler", action="store_true", help="check hashes alone, where no NVRTC wheel fits the machine")
    parser.add_argument("--passed", type=pathlib.Path, help="a file in which check notes what has passed, so as not to compile it again")
    asked = parser.parse_args()
    try:
        if asked.verb == "build":
            build(asked.kernels)
        elif asked.verb == "check":
            check(asked.kernels, asked.without_compiler, asked.passed)
        else:
            list_entries(asked.kernels)
    except Failure as failure:
        sys.exit(f"compile.py: {failure}")


if __name__ == "__main__":
    main()
