"""What the models learn from: endless streams of examples, each drawn from a seed.

The shipped pair's judge learns from two streams, FLIP and pointwise; the evaluations' judges from these two and from
pairwise and listwise ones. `PAIR` and `JUDGES` are what the streams of the two differ in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from datasets_prep.tiny_world.language.grammar import (
    Attributes,
    corrupt,
    draw_attributes,
    draw_from_split,
    render_instruction,
    write_response,
)
from datasets_prep.tiny_world.language.variants import draw_candidates, draw_quality, write_varied
from datasets_prep.tiny_world.training.judging import (
    Messages,
    flip_reply,
    listwise_messages,
    listwise_reply,
    pairwise_messages,
    pairwise_reply,
    pointwise_reply,
    short_pointwise_reply,
)
from flip_plugin.prompts.templates import PromptSet

# Share of the judge's training responses that lack a clause or say one twice, as a policy's slips do.
DAMAGED_SHARE = 0.1
# Of a listwise example.
MOST_RESPONSES = 8


@dataclass(frozen=True)
class Example:
    """A conversation up to the assistant's turn, and the reply to learn."""

    messages: Messages
    reply: str

    def conversation(self) -> Messages:
        """The messages with the reply as the assistant's turn."""
        return [*self.messages, {"role": "assistant", "content": self.reply}]


@dataclass(frozen=True)
class Style:
    """What the examples of two kinds of judge differ in.

    seed_name    begins the names of the streams' random numbers
    write        makes a response that shows these attributes
    quality      what a response to these attributes shows: some of them, all, or none
    score_reply  (instruction, response) -> the reply to the pointwise prompt
    """

    seed_name: str
    write: Callable[[Attributes, random.Random], str]
    quality: Callable[[Attributes, random.Random], Attributes]
    score_reply: Callable[[str, str], str]


# The shipped pair's judge: responses of one length, of every quality alike.
PAIR = Style("", write_response, lambda attributes, rng: corrupt(attributes, rng.random(), rng), short_pointwise_reply)
# The evaluations' judges: responses of many lengths, half of them nearly right (`variants.py`).
JUDGES = Style("judges-", write_varied, draw_quality, pointwise_reply)


def draw_question(rng: random.Random) -> tuple[str, Attributes]:
    """An instruction of the pretraining split, and the attributes that it asks for."""
    attributes = draw_from_split("pretraining", rng)
    return render_instruction(attributes, rng), attributes


def _maybe_damaged(response: str, rng: random.Random) -> str:
    """The response; in a `DAMAGED_SHARE` of the draws with one clause left out or repeated."""
    if rng.random() >= DAMAGED_SHARE:
        return response
    clauses = response.split(", ")
    place = rng.randrange(len(clauses))
    clauses[place : place + 1] = [] if len(clauses) > 1 and rng.random() < 0.5 else [clauses[place]] * 2
    return ", ".join(clauses)


# --- streams ----------------------------------------------------------------------------------------------


def policy_examples(seed: int, keep: float, num_faithful: int = 0) -> Iterator[Example]:
    """Instruction -> response, each attribute right with probability `keep` and another value otherwise.

    The first `num_faithful` responses get everything right. From those a model learns in a few hundred updates
    which surface belongs to which value; from half-right ones alone that takes many times longer.
    """
    rng = random.Random(f"policy-{seed}")
    for number in count():
        instruction, attributes = draw_question(rng)
        response = write_response(corrupt(attributes, 1.0 if number < num_faithful else keep, rng), rng)
        yield Example([{"role": "user", "content": instruction}], response)


def flip_examples(seed: int, prompts: PromptSet, style: Style = PAIR) -> Iterator[Example]:
    """FLIP prompt -> inferred instruction. The response's quality plays no part: no instruction is shown."""
    rng = random.Random(f"{style.seed_name}flip-{seed}")
    while True:
        response = _maybe_damaged(style.write(draw_from_split("pretraining", rng), rng), rng)
        yield Example(prompts.flip_messages(response), flip_reply(response, rng))


def pointwise_examples(seed: int, prompts: PromptSet, style: Style = PAIR) -> Iterator[Example]:
    """Pointwise prompt -> score, for responses of every quality from none right to all right."""
    rng = random.Random(f"{style.seed_name}pointwise-{seed}")
    while True:
        instruction, attributes = draw_question(rng)
        response = _maybe_damaged(style.write(style.quality(attributes, rng), rng), rng)
        yield Example(prompts.pointwise_messages(instruction, response), style.score_reply(instruction, response))


def pairwise_examples(seed: int, prompts: PromptSet) -> Iterator[Example]:
    """Pairwise prompt -> the better one."""
    rng = random.Random(f"judges-pairwise-{seed}")
    while True:
        instruction, attributes = draw_question(rng)
        (first, second), _ = draw_candidates(instruction, attributes, 2, rng)
        yield Example(
            pairwise_messages(prompts, instruction, first, second), pairwise_reply(instruction, first, second)
        )


def listwise_examples(seed: int, prompts: PromptSet, block: int = 1) -> Iterator[Example]:
    """Listwise prompt -> the best one, for 4 responses in half of the examples, else for 2 to `MOST_RESPONSES`.

    `block` examples in a row have the same number of responses, so that a batch of them holds little padding.
    """
    rng = random.Random(f"judges-listwise-{seed}")
    while True:
        number = 4 if rng.random() < 0.5 else rng.randint(2, MOST_RESPONSES)
        for _ in range(block):
            instruction, attributes = draw_question(rng)
            responses, best = draw_candidates(instruction, attributes, number, rng)
            yield Example(
                listwise_messages(prompts, instruction, responses), listwise_reply(instruction, responses, best)
            )


def judge_streams(seed: int, prompts: PromptSet, block: int = 1) -> list[Iterator[Example]]:
    """The four streams that the evaluations' judges learn from; see `listwise_examples` for `block`."""
    return [
        flip_examples(seed, prompts, JUDGES),
        pointwise_examples(seed, prompts, JUDGES),
        pairwise_examples(seed, prompts),
        listwise_examples(seed, prompts, block),
    ]


# --- texts for the tokenizers -----------------------------------------------------------------------------


def corpus(seed: int, num_texts: int, prompts: PromptSet, template: Callable[[Messages], str]) -> Iterator[str]:
    """Conversations of the policy and of the pair's judge, in the chat template's form."""
    rng = random.Random(f"corpus-{seed}")
    for _ in range(num_texts):
        attributes = draw_attributes(rng)
        instruction, response = render_instruction(attributes, rng), write_response(attributes, rng)
        for example in (
            Example([{"role": "user", "content": instruction}], response),
            Example(prompts.flip_messages(response), flip_reply(response, rng)),
            Example(prompts.pointwise_messages(instruction, response), short_pointwise_reply(instruction, response)),
        ):
            yield template(example.conversation())


def corpus_of(
    streams: Sequence[Iterator[Example]], num_texts: int, template: Callable[[Messages], str]
) -> Iterator[str]:
    """The first `num_texts` conversations of each stream, in turn, in the chat template's form."""
    for _ in range(num_texts):
        for stream in streams:
            yield template(next(stream).conversation())
