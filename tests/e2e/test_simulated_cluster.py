"""2 learners x 2 policy engines x 2 judge replicas over three Ray nodes that are simulated on this machine."""

import importlib.util
import json
import uuid
from collections import Counter

import pytest
from tiny_run import ROOT, TAG, tagged_processes, tiny_flags

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def cluster():
    path = ROOT / "benchmarks" / "simulated_cluster.py"
    spec = importlib.util.spec_from_file_location("simulated_cluster", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tag = uuid.uuid4().hex
    with module.SimulatedCluster([3, 3, 3], extra={TAG: tag}) as simulated:
        yield simulated
    assert tagged_processes(tag) == []


def flags(folder, **changes):
    return tiny_flags(
        folder,
        num_learners_per_node="1 1",
        deepspeed_stage=2,
        learner_threads=1,
        vllm_num_engines=2,
        llm_judge_num_engines=2,
        total_episodes=16 * 3,
        local_eval_every=3,
        eval_on_step_0=False,
        **changes,
    )


def test_a_run_over_three_nodes(cluster, tmp_path, launch):
    run = launch(flags(tmp_path), **cluster.environment)
    run.wait_for("step 1/3", 800)
    nodes = {
        title: sorted(node for _, node in cluster.workers(title))
        for title in ("ray::PolicyTrainer", "ray::LLMRayActor", "ray::JudgeReplica", "ray::DataPreparation")
    }
    assert run.process.wait(600) == 0, run.output()
    for title in ("ray::PolicyTrainer", "ray::LLMRayActor", "ray::JudgeReplica"):
        assert len(set(nodes[title])) == 2, nodes
    assert nodes["ray::DataPreparation"] == [0], "it writes next to the driver's files"
    assert {node for found in nodes.values() for node in found} == {0, 1, 2}
    left = [process for title in (*nodes, "EngineCore", "api_server") for process in cluster.workers(title)]
    assert left == [], "the cluster is still up, and nothing of the run is"

    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in lines] == [1, 2, 3]
    assert all(line["optim/grad_norm"] > 0 for line in lines)
    assert lines[0]["debug/vllm_vs_local_logprob_diff_mean"] < 0.001
    assert lines[-1]["eval/general-flip_reward"] > 0
    assert lines[-1]["engine/up"] == lines[-1]["judge/replicas_up"] == 2

    # Both replicas were asked, each on the address of its own node, with a key that nothing wrote down.
    calls = [
        json.loads(line)
        for path in (tmp_path / "out" / "judge_calls").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    bases = Counter(call["api_base"] for call in calls)
    assert len(bases) == 2 and all(base.startswith("http://127.0.0.") for base in bases), bases
    assert len({base.split(":")[1] for base in bases}) == 2, bases
    assert Counter(call["error"] for call in calls) == {None: len(calls)}


def test_a_plan_that_wants_more_nodes_is_refused_in_words(cluster, tmp_path, launch):
    run = launch([*flags(tmp_path), "--num_learners_per_node", "1", "1", "1", "1"], **cluster.environment)
    assert run.process.wait(200) == 1
    assert "--num_learners_per_node names 4 nodes, the cluster has 3" in run.output()
