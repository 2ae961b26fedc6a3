#!/usr/bin/env bash
# Makes the tests' Python environment, or leaves it alone when its requirements have not changed.
# setup_venv.sh DIRECTORY REQUIREMENTS...
set -euo pipefail

directory=$1
shift
sum=$(cat "$@" | cksum)
if [ -f "$directory/stamp" ] && [ "$(cat "$directory/stamp")" = "$sum" ]; then exit 0; fi
echo "Preparing the tests' Python environment in $directory"
rm -rf "$directory"
python3 -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check "${@/#/--requirement=}"
printf '%s\n' "$sum" > "$directory/stamp"
