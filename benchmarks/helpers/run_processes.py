"""The processes of a training run, by what they do, with the CPU time that they have used."""

from __future__ import annotations

import psutil

TAG = "FLIP_PROFILE_TAG"
ROLES = (  # first match on the command line wins
    ("ray::LLMRayActor", "policy engine: actor (AsyncLLM)"),
    ("ray::Judge", "judge: actor"),
    ("ray::DataPreparationActor", "data preparation and judge client (LiteLLM)"),
    ("ray::PolicyTrainerRayProcess", "learner (DeepSpeed)"),
    ("api_server", "judge: OpenAI server"),
    ("open_instruct.grpo_fast", "driver"),
    ("raylet", "Ray"),
    ("gcs_server", "Ray"),
    ("ray", "Ray"),
)


def processes(tag: str) -> dict[int, tuple[str, float]]:
    """{pid: (role, CPU seconds so far)} of everything that carries `tag` in its environment."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) != tag:
                continue
            times = process.cpu_times()
            found[process.pid] = (role_of(process), times.user + times.system)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def role_of(process: psutil.Process) -> str:
    """What a process of the run does, by its command line, or its parent's for an engine core."""
    line = " ".join(process.cmdline())
    if "EngineCore" in line or "multiprocessing.spawn" in line:
        parent = " ".join(process.parent().cmdline()) if process.parent() else ""
        return "judge: engine core" if "api_server" in parent else "policy engine: engine core"
    return next((role for part, role in ROLES if part in line), line[:60] or process.name())
