# How train/grpo.sh and eval/eval.sh begin: `source start.sh FOLDER tiny DEFAULT [OTHER ...]`, the names of the folder's
# profiles, the first for a machine without a GPU, the second for one with. Makes the environment where there is none,
# and sets ROOT, PYTHON and PROFILE (which may come from outside).
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
PYTHON="$ROOT/.venv/bin/python"
bash "$ROOT/scripts/env.sh"
read -r KIND _ <"$ROOT/.venv/.flip-env"  # cpu or gpu: what env.sh found

REAL="${*:3}"
if [[ -z "${PROFILE:-}" && "$KIND" == cpu ]]; then
    PROFILE="$2"
    echo "No GPU found: running the embedded tiny world. PROFILE=${REAL// / or } asks for the real recipes." >&2
fi
PROFILE="${PROFILE:-$3}"
if [[ ! -r "$ROOT/scripts/$1/profiles/$PROFILE.sh" ]]; then
    echo "PROFILE=$PROFILE is unknown: choose $2 or ${REAL// / or }." >&2
    exit 2
fi
