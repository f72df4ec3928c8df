#!/bin/sh
# Cross-compiles the kernels and their conformance test for AArch64 and runs it under qemu's user mode emulation, once on a
# CPU with every extension and once on one without i8mm.
#   tests/aarch64.sh [folder for JUnit XML reports]
# Debian: g++-aarch64-linux-gnu qemu-user googletest
set -eu
cd "$(dirname "$0")/.."
out=build/aarch64
reports=${1:-$out}
mkdir -p "$out" "$reports"

compile() {  # source object flags...
  source=$1 object=$out/$2
  shift 2
  aarch64-linux-gnu-g++ -std=c++17 -O2 -Wall -Wextra -ffp-contract=off -fno-math-errno -I. "$@" -c "$source" -o "$object"
}

gtest=/usr/src/googletest/googletest
test -f "$out/gtest.o" || compile $gtest/src/gtest-all.cc gtest.o -I$gtest -I$gtest/include
test -f "$out/gtest_main.o" || compile $gtest/src/gtest_main.cc gtest_main.o -I$gtest/include
compile format/packed_layout.cc packed_layout.o
compile runtime/kernels/dispatch.cc dispatch.o
compile runtime/kernels/scalar.cc scalar.o
compile runtime/kernels/neon.cc neon.o -O3 -march=armv8.2-a+dotprod
compile runtime/kernels/neon_i8mm.cc neon_i8mm.o -O3 -march=armv8.2-a+dotprod+i8mm
compile runtime/kernels/kernels_test.cc kernels_test.o -I$gtest/include
aarch64-linux-gnu-g++ -o "$out/kernels_test" "$out"/*.o -lpthread

for cpu in max cortex-a76; do
  qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $cpu "$out/kernels_test" --gtest_brief=1 --gtest_output="xml:$reports/aarch64-$cpu.xml"
done
