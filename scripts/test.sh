#!/usr/bin/env bash
# Environment, linter, type checker, tests. Arguments go to pytest:
#   bash scripts/test.sh                 the default set (no slow or gpu tests)
#   bash scripts/test.sh -m slow         the slow ones
#   bash scripts/test.sh tests/open_instruct -k plan
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh

.venv/bin/ruff check
.venv/bin/ruff format --check --quiet
.venv/bin/ty check
exec .venv/bin/python -m pytest --durations=10 "$@"
