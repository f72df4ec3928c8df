#!/bin/bash
# Runs fuzz targets with libFuzzer, address and undefined behaviour sanitizers (clang-19).
#
#   tests/fuzz/run.sh 30                   every target for 30 minutes
#   tests/fuzz/run.sh 5 gguf config        some for 5
#
# New inputs go to a corpus that grows in ~/.cache/quire-fuzz; a finding is written to the working
# directory as crash-*, oom-* or timeout-*, and belongs into corpus/TARGET/ with its fix.
set -euo pipefail
minutes=${1:?minutes for each target}
shift
cd "$(dirname "$0")/../.."
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for folder in tests/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
CC=clang-19 bazel build --symlink_prefix=bazel-fuzz- -c dbg --copt=-O1 --copt=-fsanitize=fuzzer-no-link,address,undefined \
  --copt=-fno-sanitize-recover=undefined --linkopt=-fsanitize=address,undefined --linkopt=-fsanitize-link-c++-runtime \
  $(printf '//tests/fuzz:%s_fuzz ' "${targets[@]}")
# Memory that was freed is kept from use for less long, so that it stays in the cache: inputs are small.
export ASAN_OPTIONS=quarantine_size_mb=8:malloc_context_size=8
for target in "${targets[@]}"; do
  grown=${XDG_CACHE_HOME:-$HOME/.cache}/quire-fuzz/$target
  mkdir -p "$grown"
  echo "== $target"
  # Nothing that a parser does with an input of 64 KiB takes 10 seconds or 512 MiB.
  "bazel-fuzz-bin/tests/fuzz/${target}_fuzz" -max_total_time=$((minutes * 60)) -max_len=65536 -timeout=10 \
    -rss_limit_mb=512 -malloc_limit_mb=256 -print_final_stats=1 "$grown" "tests/fuzz/corpus/$target" 2>&1 |
    grep -v -E '^#[0-9]+.*(REDUCE|NEW|pulse)'
done
