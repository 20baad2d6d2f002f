#!/usr/bin/env bash
# Every check of this repository, on a Debian machine with Rust: installs what is missing, then
# formats, lints, documents and tests. A missing server is an error here, never a silent skip.
set -euo pipefail
cd "$(dirname "$0")/.."

install_missing() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v redis-server >/dev/null || missing+=(redis-server)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
        missing+=(postgresql)
    # Debian puts it where the PATH of a plain user does not look.
    PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null || missing+=(mariadb-server)
    PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    # Tests boot a real systemd in a container, and install the Debian package there.
    command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v dpkg-shlibdeps >/dev/null || missing+=(dpkg-dev)
    command -v curl >/dev/null || missing+=(curl)
    # promtool checks the metrics, the alerts and their tests.
    command -v promtool >/dev/null || missing+=(prometheus)
    # Triggers are compared with APScheduler itself.
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    echo "installing: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    # The tests start private instances; a service of the system's own is not wanted. Packages ask
    # this program whether they may start one, and RUNLEVEL would not stop systemd.
    local policy=/usr/sbin/policy-rc.d made="" status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" install -m 755 /dev/stdin "$policy"
        made=yes
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || status=$?
    [ -z "$made" ] || "${sudo[@]}" rm -f "$policy"
    return "$status"
}

step() {
    local began=$SECONDS
    echo "== $*"
    "$@"
    echo "== done in $((SECONDS - began)) s"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
install_missing
export PUNCTUAL_REQUIRE_SERVERS=1
step bash tests/apscheduler/setup.sh
step cargo fmt --all --check
step cargo clippy --quiet --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --quiet --no-deps --document-private-items
# Most tests wait for a process or a database more than they compute.
export RUST_TEST_THREADS=$((2 * $(nproc)))
step cargo test --no-fail-fast 2>&1 | tee "$log"
# The same commands in cgroups, where this user may make some.
PUNCTUAL_CGROUP=1 step cargo test --test command_torture 2>&1 | tee -a "$log"
# One line at the end that says how much was tested, over all test programs.
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "total: %d passed, %d failed\n", passed, failed }' "$log"
