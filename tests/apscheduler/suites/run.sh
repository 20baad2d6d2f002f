#!/usr/bin/env bash
# Runs APScheduler's trigger tests of one version against a program:
#   run.sh 3.11.3|4.0.0a6 path/to/punctual [folder with the tests] [arguments of pytest…]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
version=$1
program=$(realpath "$2")
tests=${3:-$root/target/apscheduler/suites/$version/tests}
files=("$tests/triggers")
[ "$version" = 3.11.3 ] && files+=("$tests/test_expressions.py")
cd "$tests"
export SUITE=$version PUNCTUAL=$program PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
exec "$root/target/apscheduler/venv/bin/python" -m pytest -p plugin --noconftest --import-mode=importlib \
    -p no:cacheprovider -c /dev/null --rootdir "$tests" -q "${files[@]}" "${@:4}"
