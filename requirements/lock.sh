#!/usr/bin/env bash
# Rewrite requirements/{cpu,gpu}.txt from the .in files: every package pinned, no
# index or wheel folder named, so the locks work behind any mirror.
# Usage: bash requirements/lock.sh [more uv flags, e.g. --upgrade]
# The CPU lock needs a place that has torch's CPU wheel: a folder in PIP_FIND_LINKS,
# or the network (uv's --torch-backend).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

common=(-q --python-version 3.11 --python-platform x86_64-manylinux_2_28)
cpu_torch=(--torch-backend cpu)
if [[ -n "${PIP_FIND_LINKS:-}" ]]; then
    export UV_FIND_LINKS="$PIP_FIND_LINKS"  # uv does not read pip's variable
    cpu_torch=()
fi
export UV_CUSTOM_COMPILE_COMMAND="bash requirements/lock.sh"

uv pip compile "${common[@]}" "${cpu_torch[@]}" --override override-cpu.txt cpu.in -o cpu.txt "$@"
uv pip compile "${common[@]}" gpu.in -o gpu.txt "$@"
wc -l cpu.txt gpu.txt
