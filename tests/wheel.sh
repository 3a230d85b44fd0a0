#!/usr/bin/env bash
# Builds the wheel, installs it without the source tree, and runs it from another folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/source" # a build leaves files in its folder
(cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$work/source")
"$python" -m build --wheel --outdir "$work/dist" "$work/source" >/dev/null
"$python" -m pip install --quiet --no-deps --target "$work/installed" "$work"/dist/*.whl

mkdir "$work/elsewhere" && cd "$work/elsewhere"
export PYTHONPATH=$work/installed
"$python" -P - "$work/source" "$work/installed" <<'PYTHON'
import importlib, pkgutil, sys
from pathlib import Path

root, installed = map(Path, sys.argv[1:])
for package in ("blocks", "hw_profiles", "search_spaces", "compress", "nas"):
    there = {path.relative_to(installed) for path in (installed / package).rglob("*") if path.is_file()}
    there = {path for path in there if "__pycache__" not in path.parts}
    wanted = {path.relative_to(root) for path in (root / package).rglob("*") if path.is_file()}
    wanted = {path for path in wanted if "__pycache__" not in path.parts}
    assert there == wanted, f"{package}: {sorted(map(str, there ^ wanted))}"
    module = importlib.import_module(package)
    assert Path(module.__file__).is_relative_to(installed), module.__file__
    for found in pkgutil.walk_packages(module.__path__, f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
PYTHON
"$python" -P -m nas run --data digits --device host --latency 5ms --trials 1 --teacher none --baseline none --max-accuracy-drop 100 \
  --set size=16 --set latency_from=estimated --set search_epochs=0.1 --set train_epochs=0.5 --set prune_epochs=0.2 --out run
"$python" -P -m nas report run
"$python" -P -m nas export run/stages/02_int8/model.int8.onnx --out program
test -f program/Makefile
