#!/bin/sh
# Builds the Debian package from a binary that is already built: packaging/deb.sh [BINARY [FOLDER]]
# By default from target/dist/punctual into target/debian. REVISION is the Debian revision, 1 by default.
# It needs dpkg-dev and binutils.
set -eu
umask 022
cd "$(dirname "$0")/.."
binary=${1:-target/dist/punctual}
folder=${2:-target/debian}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-${REVISION:-1}
architecture=$(dpkg --print-architecture)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# dpkg-shlibdeps wants the layout of a source package.
root=$scratch/debian/punctual
mkdir -p "$folder" "$root/DEBIAN"

put() { # MODE SOURCE TARGET
    install -D -m "$1" "$2" "$root$3"
}
put 755 "$binary" /usr/bin/punctual
# The symbols stay, so that a panic shows function names.
strip --strip-debug "$root/usr/bin/punctual"
# The program generates its manual pages and completions.
"$root/usr/bin/punctual" man "$root/usr/share/man/man1" >"$scratch/pages"
gzip -9n "$root"/usr/share/man/man1/*
for shell in bash zsh fish; do
    "$root/usr/bin/punctual" completions "$shell" >"$scratch/$shell"
done
put 644 "$scratch/bash" /usr/share/bash-completion/completions/punctual
put 644 "$scratch/zsh" /usr/share/zsh/vendor-completions/_punctual
put 644 "$scratch/fish" /usr/share/fish/vendor_completions.d/punctual.fish
put 644 systemd/punctual.service /usr/lib/systemd/system/punctual.service
put 644 systemd/sysusers.conf /usr/lib/sysusers.d/punctual.conf
put 644 systemd/tmpfiles.conf /usr/lib/tmpfiles.d/punctual.conf
put 644 jobs.toml /etc/punctual/jobs.toml
put 644 packaging/default /etc/default/punctual
install -d -m 700 "$root/etc/punctual/credentials"
put 644 LICENSE /usr/share/doc/punctual/copyright
for file in README.md CHANGELOG.md docs/*.md; do
    put 644 "$file" "/usr/share/doc/punctual/$file"
done
for file in docs/prometheus/*; do
    put 644 "$file" "/usr/share/doc/punctual/prometheus/$(basename "$file")"
done
for file in systemd/drop-ins/*.conf; do
    put 644 "$file" "/usr/share/doc/punctual/examples/$(basename "$file")"
done

printf 'Source: punctual\n\nPackage: punctual\nArchitecture: any\n' >"$scratch/debian/control"
libraries=$(cd "$scratch" && dpkg-shlibdeps -O debian/punctual/usr/bin/punctual | sed -n 's/^shlibs:Depends=//p')

cat >"$root/DEBIAN/control" <<CONTROL
Package: punctual
Version: $version
Architecture: $architecture
Maintainer: ${DEBFULLNAME:-The Punctual authors} <${DEBEMAIL:-maintainers@punctual.invalid}>
Installed-Size: $(du -k -s --apparent-size "$root" | cut -f 1)
Depends: $libraries, init-system-helpers, systemd (>= 252)
Recommends: ca-certificates, tzdata
Section: admin
Priority: optional
Description: job scheduler that runs as a service
 Punctual keeps jobs in a SQL store, runs each one on time, and records what
 became of every occurrence. Jobs are added by a command line, by a file, or
 over a Unix socket that speaks HTTP and JSON.
CONTROL
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    put 755 "packaging/debian/$script" "/DEBIAN/$script"
done
package=punctual_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$folder/.$package"
# The rename is atomic, so nobody can install an incomplete package.
mv "$folder/.$package" "$folder/$package"
