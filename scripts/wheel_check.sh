#!/usr/bin/env bash
# scripts/wheel_check.sh [PYTHON]: build the wheel, install it where there is no compiler, and caption a picture with it.
#
# The new environment is empty but for pip, PATH holds nothing but its own programs while it is installed and run, and
# only wheels are accepted for what recur needs.
set -euo pipefail
python="$(command -v "${1:-python3}")"
here="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/build"
"$work/build/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/dist" "$here"
wheel="$(echo "$work"/dist/recur-*.whl)"
echo "wheel: $(basename "$wheel"), $(($(wc -c <"$wheel") / 1000)) kB"

"$python" -m venv "$work/empty"
cp "$here/scripts/try_wheel.py" "$work/"
(
  cd "$work"
  export PATH="$work/empty/bin"
  python -m pip install --quiet --disable-pip-version-check --only-binary :all: "$wheel"
  python -I try_wheel.py
)
