#!/usr/bin/env bash
# Fails if a binary needs a glibc newer than 2.31 (Debian 11, Ubuntu 20.04), or a library that the
# packages do not ask for. Prints the versions that it needs.
#
#   glibc.sh BINARY
set -euo pipefail

NEWEST=2.31
# Parts of glibc, and systemd's.
LIBRARIES='ld-linux-aarch64\.so\.1|ld-linux-x86-64\.so\.2|lib(c|m)\.so\.6|lib(pthread|util|rt|resolv)\.so\.[0-9]|libdl\.so\.2|libsystemd\.so\.0'

binary=${1:?}
versions=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9][0-9.]*' | sed 's/GLIBC_//' | sort -uV)
[[ -n $versions ]] || {
  echo "glibc: $binary names no version of glibc: is it a dynamic program?" >&2
  exit 1
}
newest=$(tail -n 1 <<<"$versions")
echo "glibc: $binary needs ${versions//$'\n'/ }"
if [[ $(printf '%s\n' "$newest" "$NEWEST" | sort -V | tail -n 1) != "$NEWEST" ]]; then
  echo "glibc: $binary needs glibc $newest, and must run with $NEWEST:" >&2
  objdump -T "$binary" | grep -F "GLIBC_$newest" >&2
  exit 1
fi

needed=$(objdump -p "$binary" | sed -n 's/^ *NEEDED *//p')
echo "glibc: $binary is linked to ${needed//$'\n'/ }"
if grep -vxE "$LIBRARIES" <<<"$needed" >&2; then
  echo "glibc: the packages do not ask for these libraries" >&2
  exit 1
fi
