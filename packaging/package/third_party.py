"""Prints the notices and licences of everything that is in the binary: crates and the C code that they bring.

    third_party.py TARGET

Of each crate that is built for TARGET, the files of its source that hold a licence; the same text once.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

TEXTS = re.compile(r"(licen[sc]e|copying|notice|copyright|unlicense)", re.IGNORECASE)
# Where crates keep the C code that they build.
INSIDE = {"rdkafka-sys": "librdkafka", "openssl-src": "openssl", "libz-sys": "src/zlib", "zstd-sys": "zstd"}


def built(target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--features=bundled", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, ahead = set(), [root]
    while ahead:
        node = nodes[ahead.pop()]
        for dependency in node["deps"]:
            # openssl-src is a dependency of a build script, and its code is in the binary all the same.
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            wanted = None in kinds or packages[dependency["pkg"]]["name"] in INSIDE
            if wanted and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                ahead.append(dependency["pkg"])
    return sorted((packages[id] for id in found), key=lambda package: (package["name"], package["version"]))


def texts(package):
    home = pathlib.Path(package["manifest_path"]).parent
    for place in (home, home / INSIDE[package["name"]] if package["name"] in INSIDE else None):
        for path in sorted(place.iterdir()) if place and place.is_dir() else ():
            if path.is_file() and TEXTS.match(path.name) and path.suffix not in (".rs", ".py", ".h"):
                yield path.relative_to(home), path.read_text(encoding="utf-8", errors="replace").strip()


def main():
    shown = {}
    for package in built(sys.argv[1]):
        name = f"{package['name']} {package['version']}"
        print(f"{'=' * 78}\n{name}\nLicence: {package['license']}")
        if package["authors"]:
            print(f"Authors: {', '.join(package['authors'])}")
        for path, text in texts(package):
            if text in shown:
                print(f"{path}: as that of {shown[text]}")
            else:
                shown[text] = name
                print(f"\n--- {path}\n\n{text}\n")


os.chdir(pathlib.Path(__file__).resolve().parents[2])
main()
