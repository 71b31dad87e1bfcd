#!/bin/sh
# Make the virtual environment $1 with the first Python on this machine that fits; say what is missing if none does.
set -eu

# 3.11 to 3.13 come first: for them Postgres comes as a wheel.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, '"$2"'))' 2>/dev/null; }

for newest in 13 99; do
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14 python3 python; do
        if command -v "$python" >/dev/null 2>&1 && fits "$python" "$newest"; then
            "$python" -m venv --clear "$1" && exit 0
            echo "$python cannot make virtual environments: install its venv module (Debian: apt install python3-venv)." >&2
            exit 1
        fi
    done
done
echo "Python 3.11 or newer is needed, and none is on the PATH. Install one, or name it: make PYTHON=/path/to/python3.12 run" >&2
exit 1
