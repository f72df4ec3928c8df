#!/usr/bin/env bash
# Writes golden.quire anew, and its first bytes into format/FORMAT.md. Only for a deliberate change of the format.
set -euo pipefail
cd "$(dirname "$0")/../.."
bazel build //format:golden_test
TEST_TMPDIR=$(mktemp -d)
export TEST_TMPDIR
bazel-bin/format/golden_test >/dev/null || true
cp "$TEST_TMPDIR/golden.quire" tests/testdata/golden.quire
python3 - <<'EOF'
import re
data = open("tests/testdata/golden.quire", "rb").read(160)
dump = "".join("%08x  %s\n" % (i, data[i : i + 16].hex(" ")) for i in range(0, 160, 16))
text = open("format/FORMAT.md").read()
head, tail = text.split("compares byte for byte with what the writer writes:\n\n```\n")
open("format/FORMAT.md", "w").write(head + "compares byte for byte with what the writer writes:\n\n```\n" + dump + tail[tail.index("```"):])
EOF
