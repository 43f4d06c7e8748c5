#!/bin/sh
# Make a virtual environment in the folder named as the first argument unless a working one is there.
# The second argument, which may be empty, names the interpreter.
set -eu

venv=$1
python=${2:-}

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

# Only a folder that is an environment is ever cleared.
if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    echo "$venv exists and is not a virtual environment; remove it or choose another folder with VENV=." >&2
    exit 1
fi

python=$(sh "$(dirname "$0")/find_python.sh" "$python")
echo "Making $venv with $("$python" --version) ($python)"
"$python" -m venv --clear "$venv"
