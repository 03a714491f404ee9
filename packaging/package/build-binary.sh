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
# cargo-zigbuild finds zig as a program of that environment, or as its Python's module.
export PATH=$work/bin:$tools/python/bin:$tools/bin:$PATH
mkdir -p "$work/bin"
# Otherwise it starts three Pythons for each file of C, to ask zig for its version and to run it.
CARGO_ZIGBUILD_ZIG_COMMAND=$("$tools/python/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
CARGO_ZIGBUILD_ZIG_VERSION=$("$CARGO_ZIGBUILD_ZIG_COMMAND" version)
export CARGO_ZIGBUILD_ZIG_COMMAND CARGO_ZIGBUILD_ZIG_VERSION

# Rust's own library for the other processor. Without rustup it has to be there already.
libraries=$(rustc --print target-libdir --target "$target")
if [[ ! -d $libraries ]]; then
  echo "package: rustup target add $target" >&2
  rustup target add "$target" >&2
fi

# librdkafka's own configure asks for CC and its like, not for the target's, which cargo-zigbuild sets. It
# takes gcc if CC has no version, and zig knows none together with such a target. No sanitizer: zig would
# put one in, for which there is no library to link. librdkafka's list of exported names has some that it lacks.
#
# OpenSSL and librdkafka note the compiler's name and options in what they build. So that the same bytes come out
# wherever the tree and cargo's home are, the name is without a directory (and not cc, which is this machine's), and
# options that hold one are the tool's own.
tool() { # NAME ZIG'S NAME, OPTION...
  local name=$1
  shift
  cat >"$work/bin/package-$name" <<TOOL
#!/bin/sh
[ "\$1" != --version ] || exec cargo-zigbuild zig $1 -- --version
exec cargo-zigbuild zig $1 -- "\$@" ${*:2}
TOOL
  chmod +x "$work/bin/package-$name"
}

home=${CARGO_HOME:-$HOME/.cargo}
# Where OpenSSL would look for modules: it would be a directory of the build, which may be somebody's on
# another machine. There is none in this one, which is root's everywhere.
modules='"/usr/lib/openalgo-bridge/openssl"'
options=("-Wl,--undefined-version" -fno-sanitize=all -g0 -target "$cpu-linux-gnu.$GLIBC"
  "-ffile-prefix-map=$PWD=." "-ffile-prefix-map=$home=."
  -UENGINESDIR "-DENGINESDIR=$modules" -UMODULESDIR "-DMODULESDIR=$modules")
tool cc cc "${options[@]@Q}"
tool c++ c++ "${options[@]@Q}"
tool ar ar
tool ranlib ranlib

package-cc -shared -nostdlib -O1 -Wl,-soname,libsystemd.so.0 \
  -Wl,--version-script,packaging/package/libsystemd.map \
  -o "$work/libsystemd.so" packaging/package/libsystemd.c

# OpenSSL notes when it was built, and each crate with C in it is built again when this changes. So it is none of a
# commit's, and stays as it is: from one commit to the next only what changed is built.
export SOURCE_DATE_EPOCH=1795726207

remap="--remap-path-prefix=$PWD=/usr/src/openalgo-bridge --remap-path-prefix=$home=/usr/src/cargo"

# The names with the target are OpenSSL's and zlib's: left out, cargo-zigbuild would name programs in a cache of its own.
of=${target//-/_}
env CC=package-cc CXX=package-c++ AR=package-ar RANLIB=package-ranlib \
  "CC_$of=package-cc" "CXX_$of=package-c++" "AR_$of=package-ar" "RANLIB_$of=package-ranlib" \
  RUSTFLAGS="$remap" SYSTEMD_LIB_DIR="$work" \
  cargo-zigbuild rustc --release --locked --target "$target.$GLIBC" --target-dir target/package \
  --features bundled --bin openalgo-bridge -- -C strip=symbols >&2
echo "target/package/$target/release/openalgo-bridge"
