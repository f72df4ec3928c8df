#!/usr/bin/env bash
# Installs what the tests need and runs every test. Last line: 'N passed, N failed'.
#   ./test.sh           C++ tests, the same under address and undefined-behaviour sanitizers, oracle tests, aarch64 kernels
set -uo pipefail
cd "$(dirname "$0")"
third_party/install.sh third_party/debian-packages.txt third_party/debian-test-packages.txt || exit 1
third_party/venv.sh build/venv tests/requirements.txt || exit 1
results=build/test-results
rm -rf "$results" && mkdir -p "$results"
status=0

# run NAME COMMAND...: says what runs, remembers failure.
run() {
  local name=$1
  shift
  echo "== $name"
  "$@" || { status=1; echo "== FAILED: $name"; }
}
# collect NAME: keeps the XML reports of the Bazel run that has just ended.
collect() {
  find -L bazel-testlogs -name test.xml 2>/dev/null | while read -r xml; do
    cp "$xml" "$results/$1-$(echo "${xml#bazel-testlogs/}" | tr '/' '-')"
  done
}

run "build" bazel build //...
run "C++ tests" bazel test --keep_going //...
collect opt
run "oracle, command line and footprint tests" build/venv/bin/python -m pytest -q --junitxml="$results/python.xml" tests
run "aarch64 kernels under qemu" tests/aarch64.sh "$results"
run "C++ tests, address and undefined-behaviour sanitizers" bazel test --config=asan --config=ubsan --keep_going //...
collect asan
build/venv/bin/python tests/summary.py "$status" "$results"
