#!/usr/bin/env bash
# Builds the binary of the packages: it runs where glibc is 2.31 or later, OpenSSL, zlib and librdkafka
# are inside. Of other libraries it needs libsystemd.so.0 alone. Prints where it is.
#
#   build-binary.sh [amd64|arm64]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

GLIBC=2.31

case ${1:-amd64} in
  amd64) cpu=x86_64 ;;
  arm64) cpu=aarch64 ;;
  *)
    echo "build-binary: amd64 or arm64, not '$1'" >&2
    exit 64
    ;;
esac
target=$cpu-unknown-linux-gnu
tools=$PWD/.tools/package
work=$PWD/target/package/$cpu
mkdir -p "$work"

# cargo-zigbuild finds zig as a program of that environment, or as its Python's module.
export PATH=$tools/python/bin:$tools/bin:$PATH

# librdkafka's own configure asks for CC and its like, not for the target's, which cargo-zigbuild sets. It
# takes gcc if CC has no version, and zig knows none together with such a target. No sanitizer: zig would
# put one in, for which there is no library to link. librdkafka's list of exported names has some that it lacks.
tool() { # NAME ZIG'S NAME, OPTION...
  local name=$1
  shift
  cat >"$work/$name" <<TOOL
#!/bin/sh
[ "\$1" != --version ] || exec cargo-zigbuild zig $1 -- --version
exec cargo-zigbuild zig $1 -- ${*:2} "\$@"
TOOL
  chmod +x "$work/$name"
}
tool cc cc -Wl,--undefined-version -fno-sanitize=all -g0 -target "$cpu-linux-gnu.$GLIBC"
tool c++ c++ -Wl,--undefined-version -fno-sanitize=all -g0 -target "$cpu-linux-gnu.$GLIBC"
tool ar ar
tool ranlib ranlib

"$work/cc" -shared -nostdlib -O1 -Wl,-soname,libsystemd.so.0 \
  -Wl,--version-script,packaging/package/libsystemd.map \
  -o "$work/libsystemd.so" packaging/package/libsystemd.c

# The same bytes wherever the tree and cargo's home are.
home=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$PWD=/usr/src/openalgo-bridge --remap-path-prefix=$home=/usr/src/cargo"

env CC="$work/cc" CXX="$work/c++" AR="$work/ar" RANLIB="$work/ranlib" \
  CFLAGS="-ffile-prefix-map=$PWD=. -ffile-prefix-map=$home=." RUSTFLAGS="$remap" SYSTEMD_LIB_DIR="$work" \
  cargo-zigbuild rustc --release --locked --target "$target.$GLIBC" --target-dir target/package \
  --features bundled --bin openalgo-bridge -- -C strip=symbols >&2
echo "target/package/$target/release/openalgo-bridge"
