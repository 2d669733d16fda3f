"""The command line: every flag of the published script, refusals, groups, and the tables that show them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from open_instruct.config import published
from open_instruct.config.args import Args
from open_instruct.config.command_line import parse_args
from open_instruct.config.flags import GROUPS
from open_instruct.config.help import flags_table, groups_table
from open_instruct.config.refused import REFUSED, split_refused

ROOT = Path(__file__).parents[3]
LEAST = ["--model_name_or_path", "some/policy", "--dataset_mixer_list", "rows.jsonl", "1.0"]
KNOWN = {f.name for f in fields(Args)}


def words(name, value):
    return [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]


def said(capsys, argv):
    with pytest.raises(SystemExit) as ended:
        parse_args(argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_each_published_flag_is_honoured_or_refused():
    assert len(published.SCRIPT) == 52
    assert not [name for name in published.SCRIPT if (name in KNOWN) == (name in REFUSED)]
    assert not KNOWN & REFUSED.keys()


def test_the_published_command_parses_without_private_services():
    values = {name: value for name, value in published.SCRIPT.items() if name not in REFUSED}
    args = parse_args([word for name, value in values.items() for word in words(name, value)])
    assert {name: getattr(args, name) for name in values} == values
    assert len(values) == 47


def test_switches_without_a_value_are_on():
    # As the published script writes them.
    switches = ["gradient_checkpointing", "with_tracking", "vllm_enable_prefix_caching"]
    args = parse_args([*LEAST, *(f"--{name}" for name in switches)])
    assert all(getattr(args, name) is True for name in switches)


@pytest.mark.parametrize("name", sorted(published.SCRIPT.keys() & REFUSED.keys()))
def test_private_services_are_refused_with_what_to_do(capsys, name):
    text = said(capsys, [*LEAST, *words(name, published.SCRIPT[name])])
    assert f"--{name}" in text and ("Leave it out" in text)


@pytest.mark.parametrize("value", ["False", "none", "0"])
def test_a_refused_flag_that_is_off_is_passed_over(value):
    assert parse_args([*LEAST, "--send_slack_alerts", value, "--seed", "7"]).seed == 7


def test_refused_flags_are_found_in_every_spelling():
    rest, told = split_refused(["--seed", "1", "--push-to-hub=True", "--tools", "a", "b", "--beta", "-1"])
    assert rest == ["--seed", "1", "--beta", "-1"]
    assert [t.split()[0] for t in told] == ["--push_to_hub", "--tools"]


def test_upstream_s_newer_names():
    args = parse_args([*LEAST, "--rho_clamp_upper_bound", "3", "--wandb_project", "p", "--tokenizer_name", "t"])
    assert args.truncated_importance_sampling_ratio_cap == 3.0
    assert (args.wandb_project_name, args.tokenizer_name_or_path) == ("p", "t")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--loss_denominator batch", "token, sequence, or a number"),
        ("--loss_denominator -3", "token, sequence, or a number"),
        ("--load_ref_policy False --beta 0.1", "--beta 0"),
        ("--use_vllm_logprobs True", "--use_rho_correction False"),
        ("--rho_mask_lower_bound 1.5", "between 0 and 1"),
        ("--rho_mask_upper_bound 0.5", "1 or more"),
        ("--rho_clamp_upper_bound 0.5", "1 or more"),
        ("--deepspeed_offload_param True --deepspeed_stage 2", "--deepspeed_stage 3"),
        ("--deepspeed_offload_optimizer True", "--deepspeed_stage 1, 2 or 3"),
        ("--deepspeed_zpg 8", "divide the number of learners"),
        ("--apply_verifiable_reward False", "no reward at all"),
        ("--additive_format_reward True", "--apply_r1_style_format_reward"),
        ("--active_sampling True --filter_zero_std_samples False", "--filter_zero_std_samples"),
        ("--overlong_buffer_length 4000", "--response_length 256"),
        ("--eval_on_step_0 True --local_eval_every -1", "contradict"),
        ("--num_nodes 3", "--num_learners_per_node 8 8"),
        ("--sequence_parallel_size 4", "--logprob_chunk_size"),
        ("--num_sample_per_prompt_rollout 8", "did you mean --num_samples_per_prompt_rollout?"),
    ],
)
def test_what_cannot_work_is_refused_in_the_flags_own_words(capsys, flags, told):
    assert told in said(capsys, [*LEAST, *flags.split()])


def test_help_has_a_group_for_each_concept_and_no_hyphens(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    text = capsys.readouterr().out
    for group in GROUPS:
        assert f"\n{group._argument_group_name}:\n" in text
        assert all(re.search(rf"^  --{one.name} ", text, re.M) for one in fields(group))
    assert "--no_filter" not in text and "--learning-rate" not in text and "(default: None)" not in text
    assert "--truncated_importance_sampling_ratio_cap VALUE (or --rho_clamp_upper_bound)" in text


def test_the_tables_in_the_docs_are_those_of_the_code():
    # Mended by: python -m open_instruct.config.help flags|groups
    page = (ROOT / "docs/flags.md").read_text()
    assert flags_table() in page and groups_table() in page


def test_differences_from_the_published_run_have_reasons():
    args = Args(**{name: value for name, value in (published.SCRIPT | published.IMPLIED).items() if name in KNOWN})
    assert {one.name for one in published.differences(args)} == published.SCRIPT.keys() & REFUSED.keys()
    args.clip_higher = 0.3
    [changed] = [one for one in published.differences(args) if one.name == "clip_higher"]
    assert (changed.published, changed.ours, changed.reason) == (0.272, 0.3, "given for this run")
    assert "clip_higher" in published.describe(args)
