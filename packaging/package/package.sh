#!/usr/bin/env bash
# Makes the packages in dist/: the binary, everything beside it, a .deb and an .rpm of that, and what
# shows that they are fit to be published.
#
#   package.sh [amd64|arm64]...   amd64, if nothing is said
#
# From the same binary come the same bytes: every time in them is that of the last commit. The one in the binary is
# build-binary.sh's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=openalgo-bridge
stage=target/package/stage
tools=.tools/package/bin
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

version=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)

install_file() { # MODE FROM TO
  install -D -m "$1" -- "$2" "$stage$3"
}

# What the program says about itself, so it has to run here: the other processor's gets the same.
generate() {
  local binary=$1 shell to
  install -d "$stage/usr/share/man/man1"
  "$binary" man --dir "$stage/usr/share/man/man1"
  gzip -9n "$stage"/usr/share/man/man1/*
  for shell in bash:bash-completion/completions/$name fish:fish/vendor_completions.d/$name.fish \
    zsh:zsh/vendor-completions/_$name; do
    to=$stage/usr/share/${shell#*:}
    install -d "${to%/*}"
    "$binary" completions "${shell%%:*}" >"$to"
  done
}

documents() {
  local doc=/usr/share/doc/$name file
  for file in README.md docs/*.md; do install_file 644 "$file" "$doc/$file"; done
  install_file 644 systemd/$name.logrotate "$doc/examples/$name.logrotate"
  gzip -9nc CHANGELOG.md >"$stage$doc/changelog.gz"
  python3 packaging/package/third_party.py "$1" | gzip -9n >"$stage$doc/third-party.gz"
}

# Everything as it will lie below /. setup.sh lies apart, as the other files of the kit have another mode.
put_together() {
  local binary=$1 target=$2 runs_here=$3 file share=/usr/share/$name
  rm -rf "$stage"
  install_file 755 "$binary" /usr/bin/$name
  install_file 640 .sample.env /etc/$name/.env
  for file in systemd/*.service; do install_file 644 "$file" "/usr/lib/systemd/system/${file##*/}"; done
  install_file 644 systemd/$name.sysusers /usr/lib/sysusers.d/$name.conf
  install_file 644 systemd/$name.tmpfiles /usr/lib/tmpfiles.d/$name.conf
  while read -r file; do
    install_file 644 "packaging/openalgo/$file" "$share/openalgo/$file"
  done < <(cd packaging/openalgo && git ls-files | grep -vx setup.sh)
  install_file 755 packaging/openalgo/setup.sh "$share/setup.sh"
  generate "$runs_here"
  documents "$target"
  cat >target/package/changelog.Debian <<END
$name ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- The $name authors <noreply@$name.invalid>  $(date -uRd "@$SOURCE_DATE_EPOCH")
END
}

make_packages() {
  local architecture=$1 cpu=$2 target=$3
  "$tools/cargo-deb" --quiet --no-build --no-strip --target "$target" \
    --output "dist/${name}_$version-1_$architecture.deb"
  "$tools/cargo-generate-rpm" --arch "$cpu" --output "dist/$name-$version-1.$cpu.rpm"
}

check() {
  local architecture=$1 binary=$2 deb=dist/${name}_$version-1_$1.deb
  packaging/package/glibc.sh "$binary"
  # --allow-root: it reads, and starts nothing of what is inside.
  lintian --allow-root --fail-on error --tag-display-limit 0 "$deb"
}

packaging/package/tools.sh
mkdir -p dist
rm -f dist/"$name"?* dist/SHA256SUMS
here=
for architecture in "${@:-amd64}"; do
  case $architecture in
    amd64) cpu=x86_64 ;;
    arm64) cpu=aarch64 ;;
    *)
      echo "package: amd64 or arm64, not '$architecture'" >&2
      exit 64
      ;;
  esac
  target=$cpu-unknown-linux-gnu
  packaging/package/build-binary.sh "$architecture"
  binary=target/package/$target/release/$name
  [[ $cpu != "$(uname -m)" ]] || here=$binary
  # Without one that runs here, cargo's own build says the same.
  [[ -n $here ]] || here=target/release/$name
  put_together "$binary" "$target" "$here"
  make_packages "$architecture" "$cpu" "$target"
  check "$architecture" "$binary"
done
(cd dist && sha256sum -- "$name"* >SHA256SUMS)
ls -l dist >&2
