#!/usr/bin/env bash
# Makes what the comparison with APScheduler needs, under target/apscheduler/: a virtual environment with
# APScheduler 3.11.3, and the test suites of 3.11.3 and 4.0.0a6 out of their source distributions.
# Those tests are downloaded and never committed. Once all is there this does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(apscheduler==3.11.3 pytest==9.0.2 pytz==2025.2)
suites=(3.11.3 4.0.0a6)
home=target/apscheduler
stamp=$home/stamp
wanted="${packages[*]} ${suites[*]}"

[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$home/venv/bin/python" -c '' 2>/dev/null && exit 0

give_up() {
    echo "tests/apscheduler/setup.sh: $*" >&2
    exit 1
}

python3 -c 'import venv, ensurepip' 2>/dev/null ||
    give_up "python3 with its venv module is missing (Debian: apt-get install python3-venv)"

rm -rf "$home"
mkdir -p "$home"
python3 -m venv "$home/venv"
pip() {
    "$home/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@" ||
        give_up "pip failed: is the package index reachable?"
}
pip install "${packages[@]}"
for version in "${suites[@]}"; do
    pip download --no-deps --no-binary :all: --dest "$home/sdist" "apscheduler==$version"
    mkdir -p "$home/suites/$version"
    tar -xzf "$home"/sdist/apscheduler-"$version".tar.gz -C "$home/suites/$version" --strip-components=1 \
        "apscheduler-$version/tests"
done
rm -rf "$home/sdist"
echo "$wanted" >"$stamp"
