#!/bin/sh
# Print the newest working Python of 3.11 to 3.13, or the one named as the first argument if it is fit.
#
# Every candidate is run: a name on PATH may be a shim without a version behind it,
# and a distribution's Python may come without the parts that make virtual environments.
set -u

wanted=${1:-}

# Prints "<minor version> <path>" when the interpreter is fit. Inside a virtual environment the path is that of
# the interpreter behind it, so that an environment can be rebuilt while it is active.
probe() {
    "$1" -c '
import ensurepip, os, sys, venv
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    raise SystemExit(1)
ensurepip.version()
own = sys.prefix == sys.base_prefix
print(sys.version_info[1], sys.executable if own else os.path.realpath(sys.executable))
' 2>/dev/null
}

if [ -n "$wanted" ]; then
    if answer=$(probe "$wanted"); then
        printf '%s\n' "${answer#* }"
        exit 0
    fi
    echo "PYTHON=$wanted cannot be used: it must run, be Python 3.11, 3.12 or 3.13, and have venv and ensurepip." >&2
    exit 1
fi

best=
best_minor=0
consider() {
    [ -x "$1" ] && [ ! -d "$1" ] || return 0
    answer=$(probe "$1") || return 0
    minor=${answer%% *}
    if [ "$minor" -gt "$best_minor" ]; then
        best_minor=$minor
        best=${answer#* }
    fi
}

# All of PATH, not the first hit: a working interpreter may stand behind a broken shim of the same name.
old_ifs=$IFS
IFS=:
for folder in $PATH; do
    for name in python3.13 python3.12 python3.11 python3; do
        consider "${folder:-.}/$name"
    done
    [ "$best_minor" -eq 13 ] && break
done
IFS=$old_ifs

if [ "$best_minor" -lt 13 ]; then
    for candidate in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[123]*/bin/python; do
        consider "$candidate"
    done
fi

if [ -z "$best" ]; then
    {
        echo "No usable Python found: 3.11, 3.12 or 3.13 with venv and ensurepip is needed."
        echo "Looked for python3.13, python3.12, python3.11 and python3 on PATH, and in pyenv's versions."
        echo "On Debian and Ubuntu, 'apt install python3-venv' adds the missing parts to the system's Python."
        echo "An interpreter elsewhere can be named: make venv PYTHON=/path/to/python3.12"
    } >&2
    exit 1
fi
printf '%s\n' "$best"
