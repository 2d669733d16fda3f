# Sourced by the recipes of this folder, each of which re-makes one of the paper's tables or figures.
#
# From the environment, all optional:
#   PROFILE     tiny (default without a GPU): the tiny world and its three judges, minutes on two cores
#               paper (default with one): the real data and thirteen small judges, one after another
#   JUDGES      "[NAME=]MODEL[@URL] ...": LiteLLM models, or vllm:PATH_OR_ID, which is loaded by the run itself
#   METHODS     "flip pointwise listwise pairwise", or some of them
#   SEEDS       "1 2 3 4 5": a run each
#   OUTPUT_DIR  a folder for each evaluation (default: output/eval_PROFILE)
# Arguments are flags of that evaluation, and win over the profile's. The same command continues a stopped run.

source "$(dirname "${BASH_SOURCE[0]}")/../start.sh" eval tiny paper
OUTPUT_DIR="${OUTPUT_DIR:-output/eval_$PROFILE}"
METHODS="${METHODS:-flip pointwise listwise pairwise}"

flip_eval() {  # name of the evaluation, its flags
    "$PYTHON" -m flip_plugin.cli eval "$@"
}

read -ra JUDGE_LIST <<<"${JUDGES:-}"
read -ra METHOD_LIST <<<"$METHODS"

# Sets JUDGE_LIST and SEEDS where they are not given, and everything else that depends on the world.
source "$ROOT/scripts/eval/profiles/$PROFILE.sh"

read -ra SEED_LIST <<<"$SEEDS"
# What every evaluation that asks judges is given.
JUDGING=(--judges "${JUDGE_LIST[@]}" --methods "${METHOD_LIST[@]}" --seeds "${SEED_LIST[@]}" "${SAMPLING[@]}")
