"""What a run needs, and what is said when it is not there."""

from typing import Any

import pytest

from open_instruct.config.resource_plan import make_plan


def plan(**changes):
    options: dict[str, Any] = {
        "num_learners_per_node": [1],
        "vllm_num_engines": 1,
        "vllm_tensor_parallel_size": 1,
        "judge_engines": 1,
        "judge_tensor_parallel_size": 1,
        "use_gpu": True,
    }
    return make_plan(**(options | changes))


PAPER: dict[str, Any] = {"num_learners_per_node": [8], "vllm_num_engines": 16, "judge_engines": 0}


def test_gpus_are_counted_over_learners_engines_and_judges():
    assert plan(**PAPER).gpus == 24
    assert plan(**PAPER | {"judge_engines": 2, "judge_tensor_parallel_size": 2}).gpus == 28
    assert plan(num_learners_per_node=[2, 4], vllm_num_engines=3, vllm_tensor_parallel_size=2).gpus == 13


def test_a_plan_that_fits_lacks_nothing():
    nodes = [{"GPU": 8}, {"GPU": 8}, {"GPU": 8}]
    assert plan(**PAPER).shortfall({"GPU": 24, "CPU": 300, "nodes": nodes}) == []


def test_missing_gpus_are_said_with_the_flag_to_lower():
    [sentence] = plan(**PAPER).shortfall({"GPU": 16, "CPU": 300})
    assert "24 GPUs needed" in sentence and "16 available" in sentence
    assert "8 x 1 GPU for the learner + 16 x 1 GPU for the policy engine" in sentence
    assert "lower --vllm_num_engines (now 16)" in sentence


def test_a_hosted_judge_may_move_out():
    [sentence] = plan().shortfall({"GPU": 1, "CPU": 8})
    assert "HOSTED_VLLM_API_BASE" in sentence and "--single_gpu_mode True" in sentence
    assert "HOSTED_VLLM_API_BASE" not in plan(judge_engines=0).shortfall({"GPU": 1, "CPU": 8})[0]


def test_enough_gpus_on_the_wrong_nodes_is_a_shortfall():
    nodes = [{"GPU": 4}, {"GPU": 4}]
    [sentence] = plan(num_learners_per_node=[6], judge_engines=0).shortfall({"GPU": 8, "CPU": 64, "nodes": nodes})
    assert "no node has 6 GPUs left for the learner" in sentence and "--num_learners_per_node" in sentence
    [sentence] = plan(vllm_tensor_parallel_size=4, num_learners_per_node=[3]).shortfall(
        {"GPU": 8, "CPU": 64, "nodes": [{"GPU": 3}, {"GPU": 3}, {"GPU": 2}]}
    )
    assert "--vllm_tensor_parallel_size" in sentence


def test_one_gpu_is_shared_and_the_learner_gets_the_rest():
    shared = plan(single_gpu_mode=True, vllm_gpu_memory_utilization=0.3, judge_gpu_memory_utilization=0.2)
    assert shared.gpus == 1
    assert [part.gpus for part in shared.parts] == [0.5, 0.3, 0.2, 0]
    assert shared.shortfall({"GPU": 1, "CPU": 8}) == []
    assert "50% of a GPU" in shared.describe()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"single_gpu_mode": True}, "lower --vllm_gpu_memory_utilization"),
        ({"single_gpu_mode": True, "num_learners_per_node": [2]}, "room for one learner"),
        ({"single_gpu_mode": True, "vllm_tensor_parallel_size": 2}, "--vllm_tensor_parallel_size 2"),
        ({"use_gpu": False, "judge_tensor_parallel_size": 2}, "--llm_judge_tensor_parallel_size 2"),
        ({"num_learners_per_node": [0]}, "no learner"),
        ({"vllm_num_engines": 0}, "no policy engine"),
    ],
)
def test_contradictions_are_found_whatever_the_cluster_has(changes, words):
    assert any(words in sentence for sentence in plan(**changes).shortfall({"GPU": 99, "CPU": 999}))


def test_a_laptop_is_never_short_of_gpus():
    laptop = plan(use_gpu=False, single_gpu_mode=True)
    assert laptop.gpus == 0 and laptop.ray_cpus == 4
    assert laptop.shortfall({"CPU": laptop.ray_cpus}) == []
    [sentence] = laptop.shortfall({"CPU": 2})
    assert "4 CPU slots needed, 2 available" in sentence and "--num-cpus 4" in sentence


def test_the_table_says_what_runs_where():
    text = plan(num_learners_per_node=[8, 8], judge_engines=0).describe()
    assert "17 GPUs" in text
    assert "8 on node 1, 8 on node 2" in text
    assert "served outside this run" in text
    assert "judge engine" not in text
    assert "two cores are enough" in plan(use_gpu=False).describe()


def bundles(group):
    return [bundle.resources for bundle in group.bundles]


def test_learners_have_a_bundle_a_node_and_nodes_of_their_own():
    learners, engines, judges = plan(
        num_learners_per_node=[4, 4], vllm_num_engines=3, vllm_tensor_parallel_size=2, judge_engines=2
    ).groups()
    assert bundles(learners) == [{"CPU": 4, "GPU": 4}] * 2 and learners.strategy == "STRICT_SPREAD"
    assert [list(b.actors) for b in learners.bundles] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert bundles(engines) == [{"CPU": 1, "GPU": 2}] * 3 and engines.strategy == "SPREAD"
    assert bundles(judges) == [{"CPU": 1, "GPU": 1}] * 2
    assert plan(num_learners_per_node=[8]).groups()[0].strategy == "PACK"


def test_on_cpus_the_same_groups_are_of_slots():
    learners, *_ = plan(use_gpu=False, num_learners_per_node=[2, 1]).groups()
    assert bundles(learners) == [{"CPU": 2}, {"CPU": 1}] and learners.strategy == "STRICT_SPREAD"


def test_learners_are_reserved_first_then_large_bundles():
    groups = plan(judge_tensor_parallel_size=4, vllm_tensor_parallel_size=2).groups()
    assert [group.name for group in groups] == ["learner", "judge engine", "policy engine"]


def test_what_shares_one_gpu_is_in_no_group_of_its_own():
    assert plan(single_gpu_mode=True, vllm_gpu_memory_utilization=0.3, judge_gpu_memory_utilization=0.2).groups() == ()


def test_learners_on_more_nodes_than_there_are():
    for options in ({}, {"use_gpu": False}):
        [sentence] = plan(num_learners_per_node=[1, 1], **options).shortfall(
            {"GPU": 8, "CPU": 8, "nodes": [{"GPU": 8, "CPU": 8}]}
        )
        assert "names 2 nodes, the cluster has 1" in sentence and "--num_learners_per_node 2" in sentence


def test_slots_of_small_nodes_do_not_add_up():
    nodes = [{"CPU": 2}, {"CPU": 2}, {"CPU": 2}]
    [sentence] = plan(use_gpu=False, num_learners_per_node=[3]).shortfall({"CPU": 6, "nodes": nodes})
    assert "no node has 3 CPU slots left for the learner" in sentence


def test_the_papers_plan_by_node():
    paper = plan(**PAPER)
    assert paper.usual_nodes() == [8, 8, 8]
    lines = paper.describe_nodes([8, 8, 8]).splitlines()
    assert [line.split(maxsplit=4)[4] for line in lines[1:]] == [
        "8 learners, data preparation",
        "8 policy engines",
        "8 policy engines",
    ]
    hosting = plan(**PAPER | {"judge_engines": 1})
    assert "1 judge engine: needs one more node, or a server" in hosting.describe_nodes(hosting.usual_nodes())
    assert "no room" not in hosting.describe_nodes([8, 8, 8, 1])


def test_one_node_and_a_shared_gpu_are_described():
    small = plan(num_learners_per_node=[2], vllm_num_engines=2, judge_engines=1)
    assert small.usual_nodes() == [5]
    assert "2 learners, 2 policy engines, 1 judge engine, data preparation" in small.describe_nodes([5])
    shared = plan(single_gpu_mode=True, vllm_gpu_memory_utilization=0.3, judge_gpu_memory_utilization=0.2)
    assert shared.usual_nodes() == [1]
    assert "1 GPU  1 learner, 1 policy engine, 1 judge engine, data preparation" in shared.describe_nodes([1])


def test_the_docstring_example_holds():
    import doctest

    from open_instruct.config import resource_plan

    assert doctest.testmod(resource_plan).failed == 0


def test_recorded_rollouts_alone_reserve_no_engines():
    replayed = plan(generates=False, judge_engines=0, vllm_num_engines=3)
    assert replayed.gpus == 1 and "policy engine" not in replayed.describe()
    assert replayed.shortfall({"GPU": 1, "CPU": 8}) == []
    assert [group.name for group in replayed.groups()] == ["learner"]
