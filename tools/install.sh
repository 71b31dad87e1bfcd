#!/bin/sh
# Install the project and all that it needs, at the versions of constraints.txt, into the environment of $1/python.
set -eu

"$1/python" -m pip install --quiet --upgrade pip uv
echo "Installing the packages (about a minute)"
# uv takes a third of pip's time, but it knows nothing of pip's configuration (an index or certificate of your company).
"$1/uv" pip install --quiet --system-certs --python "$1/python" --compile-bytecode -c constraints.txt -e '.[platform,dev]' ||
    { echo "uv could not; trying pip" >&2 && "$1/python" -m pip install --quiet -c constraints.txt -e '.[platform,dev]'; }
