#!/usr/bin/env bash
# Installs what makes the packages into .tools/package, and nothing that is there already. Debian's
# packages come before, with packaging/dev/install-tools.sh package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CARGO_DEB=3.8.0
CARGO_GENERATE_RPM=0.21.1
LIST=packaging/package/requirements.txt

tools=.tools/package
stamp=$tools/stamp
wanted=$(printf 'cargo-deb %s\ncargo-generate-rpm %s\n' "$CARGO_DEB" "$CARGO_GENERATE_RPM" && cat "$LIST")

# Asks the environment itself too: it breaks when the Python it was made with goes away.
ready() {
  [[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]] && "$tools/python/bin/python" -c 'import ziglang' 2>/dev/null
}

! ready || exit 0
mkdir -p "$tools"
exec 9>"$tools/lock"
flock 9 # another run: wait here, then find its work done
! ready || exit 0

echo "package: installing cargo-deb, cargo-generate-rpm and zig into $tools" >&2
rm -rf "$tools/python"
# The python3 on PATH may be one that can't.
python3 -m venv "$tools/python" 2>/dev/null || /usr/bin/python3 -m venv --clear "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check -r "$LIST" </dev/null >&2
cargo install --quiet --locked --root "$tools" --version "$CARGO_DEB" cargo-deb </dev/null
cargo install --quiet --locked --root "$tools" --version "$CARGO_GENERATE_RPM" cargo-generate-rpm </dev/null
printf '%s\n' "$wanted" >"$stamp"
