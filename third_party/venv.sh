#!/usr/bin/env bash
# venv.sh FOLDER REQUIREMENTS: a Python virtual environment with the packages of a requirements file; done once per content.
set -euo pipefail
folder=$1 requirements=$2
stamp=$folder/.$(sha256sum "$requirements" | cut -c1-16)
if [ -e "$stamp" ]; then exit 0; fi
echo "== installing Python packages into $folder: $(grep -v '^#' "$requirements" | tr '\n' ' ')"
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check -r "$requirements"
rm -f "$folder"/.????????????????
touch "$stamp"
