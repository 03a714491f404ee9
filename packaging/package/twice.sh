#!/usr/bin/env bash
# Makes the packages of the last commit twice, in two directories and with two homes of cargo, and compares
# them byte for byte. What makes them is taken from this tree, and is made there if it is missing.
#
#   twice.sh [amd64|arm64]...   amd64, if nothing is said
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packaging/package/tools.sh
# Somebody may commit while the first one is built.
commit=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The second one's path is longer than the first one's, so that also what depends on its length shows.
places=("$work/one" "$work/and/in/quite/another/directory/two")
for place in "${places[@]}"; do
  mkdir -p "$place"
  git clone --quiet --no-checkout . "$place/tree"
  git -C "$place/tree" checkout --quiet --detach "$commit"
  mkdir "$place/tree/.tools"
  ln -s "$PWD/.tools/package" "$place/tree/.tools/package"
  echo "twice: in $place" >&2
  CARGO_HOME=$place/cargo "$place/tree/packaging/package/package.sh" "$@"
  # The second one must find nothing of the first one's.
  mv "$place/tree/dist" "$place/dist"
  rm -rf "$place/tree" "$place/cargo"
done

cat "${places[0]}/dist/SHA256SUMS"
diff -r "${places[0]}/dist" "${places[1]}/dist" || {
  echo "twice: two builds of one commit differ" >&2
  exit 1
}
echo "twice: both builds of $commit give the same bytes"
