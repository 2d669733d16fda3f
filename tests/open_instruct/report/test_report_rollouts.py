"""The report's rollouts: which are kept, in whole groups, and what is marked in their texts."""

from __future__ import annotations

import pytest
from report_cases import page_of, rollout, write_run

from flip_plugin.pages.text import mark_echo, mark_shared, visible
from flip_plugin.text.similarity import f1_score, normalize_answer
from open_instruct.report import rollouts
from open_instruct.report.rollouts import Place, choose_evenly, choose_groups


def test_rollouts_are_limited_evenly_in_whole_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "MAX_SAMPLES", 24)
    rows = [
        rollout(training_step=1 + i // 32, prompt_index=i // 4, sample_index=i % 4, score=None if i == 13 else 0.5)
        for i in range(96)
    ]
    _, data = page_of(write_run(tmp_path / "run", rollouts=rows))
    samples = data["rollouts"]["samples"]
    assert [sum(s["step"] == step for s in samples) for step in (1, 2, 3)] == [8, 8, 8]
    assert 13 // 4 in {s["group"] for s in samples}, "a group with a missing score is always there"
    for place in {s["place"] for s in samples}:
        assert [s["sample"] for s in samples if s["place"] == place] == [0, 1, 2, 3]
    assert data["rollouts"]["total"] == 96 and len(data["rollouts"]["prompts"]) == 1
    summary = data["runs"][0]["summary"]
    assert (summary["samples"], summary["missing"]) == (96, 1)


def test_the_same_prompt_drawn_twice_in_a_step_is_two_groups(tmp_path):
    rows = [rollout(sample_index=i) for i in (0, 1, 0, 1)]
    _, data = page_of(write_run(tmp_path / "run", rollouts=rows))
    assert [s["place"] for s in data["rollouts"]["samples"]] == [0, 0, 1, 1]


@pytest.mark.parametrize("limit", [10, 100, 999, 5000])
def test_choose_groups_takes_whole_groups_near_the_limit(limit):
    places, group = [], 0
    for step in range(30):
        for split, size, count in (("train", 8, 4), ("eval", 1, 10 * (step % 10 == 0))):
            for _ in range(count):
                places += [Place((step, split), group, group == 77)] * size
                group += 1
    chosen = choose_groups(places, limit)
    assert len(chosen) == len(places) if limit >= len(places) else len(chosen) <= limit + 8
    assert len(chosen) >= min(limit, len(places)) - 16
    for number in {places[i].group for i in chosen}:
        assert all(i in chosen for i, place in enumerate(places) if place.group == number)
    if limit >= 40:  # a fifth of the page holds the failed group
        assert any(places[i].missing for i in chosen)


@pytest.mark.parametrize("limit", [1, 5, 10, 37, 1000])
def test_choose_evenly_fills_the_limit_and_shares_it(limit):
    sizes = {"a": 3, "b": 50, "c": 20, "d": 1}
    keys = [key for key, size in sizes.items() for _ in range(size)]
    chosen = choose_evenly(keys, limit)
    assert len(chosen) == min(limit, len(keys))
    counts = {key: sum(keys[i] == key for i in chosen) for key in sizes}
    short = [key for key in sizes if counts[key] < sizes[key]]
    # Whoever did not get all gets as many as the best served, but for one.
    assert all(counts[key] >= max(counts.values()) - 1 for key in short)


@pytest.mark.parametrize(
    ("real", "inferred"),
    [
        ("Write a short poem about the sea.", "write the poem, about a SEA"),
        ("the the cat cat", "cat the dog"),
        ("“the sea” — a's-b don't", "sea “” dont as b"),
        ("  two\n\nlines\tand\u00a0more ", "lines two\x1cmore"),
        ("", "anything"),
        ("İstanbul ΣΑΣ", "i̇stanbul σας"),
        ("!!! ??? the", "... a"),
    ],
)
def test_marks_are_the_words_that_the_reward_counts(real, inferred):
    marked = mark_shared(real, inferred, 4000)
    shared, n_real, n_inferred = marked["counts"]
    expected = f1_score(inferred, real)
    assert (shared / n_inferred if n_inferred else 0) == pytest.approx(expected["precision"])
    assert (shared / n_real if n_real else 0) == pytest.approx(expected["recall"])
    for side, text in (("real", real), ("inferred", inferred)):
        pieces = marked[side]["pieces"]
        assert "".join(pieces) == visible(text)
        words = " ".join(pieces[1::2]).replace(visible("\x1c"), " ")
        assert len(normalize_answer(words).split()) == shared
        assert all(piece == piece.strip() for piece in pieces[1::2])


def test_what_a_response_repeats_is_marked():
    target = "Write a short poem about the old sea."
    marked = mark_echo(target, 'You asked: "Write a short poem about the old sea." Waves write a short tale.', 4000)
    assert marked["pieces"][1::2] == ['"Write a short poem about the old sea."']
    assert mark_echo("", "anything at all", 4000)["pieces"] == ["anything at all"]


def test_with_several_verifiers_the_flip_target_is_compared(tmp_path):
    row = rollout(dataset=["math", "general-flip"], ground_truth=["42", "Name a red fruit."])
    _, data = page_of(write_run(tmp_path / "run", rollouts=[row]))
    assert "".join(data["rollouts"]["samples"][0]["overlap"]["real"]["pieces"]) == "Name a red fruit."
