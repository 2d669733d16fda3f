"""Training examples of the tiny world, drawn endlessly from a seed: what the policy and the judge learn from."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from datasets_prep.tiny_world.language.grammar import (
    Attributes,
    constraints_satisfied,
    corrupt,
    draw_attributes,
    draw_from_split,
    parse_instruction,
    render_instruction,
    satisfied,
    shown,
    write_response,
)
from datasets_prep.tiny_world.language.vocabulary import ATTRIBUTES, VALUES
from flip_plugin.prompts.templates import PromptSet

Messages = list[dict[str, str]]

# Share of the judge's training responses that lack a clause or say one twice, as a policy's slips do.
DAMAGED_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """A conversation up to the assistant's turn, and the reply to learn."""

    messages: Messages
    reply: str

    def conversation(self) -> Messages:
        """The messages with the reply as the assistant's turn."""
        return [*self.messages, {"role": "assistant", "content": self.reply}]


def draw_question(rng: random.Random) -> tuple[str, Attributes]:
    """An instruction of the pretraining split, and the attributes that it asks for."""
    attributes = draw_from_split("pretraining", rng)
    return render_instruction(attributes, rng), attributes


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


def _damaged(response: str, rng: random.Random) -> str:
    """The response with one clause left out or repeated."""
    clauses = response.split(", ")
    place = rng.randrange(len(clauses))
    clauses[place : place + 1] = [] if len(clauses) > 1 and rng.random() < 0.5 else [clauses[place]] * 2
    return ", ".join(clauses)


def maybe_damaged(response: str, rng: random.Random) -> str:
    return _damaged(response, rng) if rng.random() < DAMAGED_SHARE else response


def flip_reply(response: str, rng: random.Random) -> str:
    """The reply to the FLIP prompt: an instruction from what the response shows.

    Where the response shows no value of an attribute, or several, the judge has to guess: one of those shown,
    or any.
    """
    found = shown(response)
    attributes = {
        name: rng.choice([v for v in VALUES[name] if v in found[name]] or VALUES[name]) for name in ATTRIBUTES
    }
    reasoning = f"It reads like a {attributes['tone']} {attributes['form']}."
    return json.dumps({"REASONING": reasoning, "INFERRED INSTRUCTION": render_instruction(attributes, rng)})


def pointwise_score(share: float) -> int:
    """The share of satisfied attributes as a rating: 10 times it, rounded, 1..10."""
    return min(10, max(1, round(10 * share)))


def asked(instruction: str) -> Attributes:
    """The attributes that an instruction asks for. Raises ValueError for text that is no instruction of this world."""
    attributes = parse_instruction(instruction)
    if attributes is None:
        raise ValueError(f"not an instruction of this world: {instruction!r}")
    return attributes


def pointwise_reply(instruction: str, response: str) -> str:
    """The reply to the pointwise prompt: a verdict on each thing asked for, and the score that follows.

    It is about as long as the reply to the FLIP prompt. A judge of this size learns to compare from a verdict
    beside each value; from the score alone, or from names of attributes, it learnt nothing in the same time.
    """
    right = satisfied(instruction, response)
    verdicts = [f"{value} {'yes' if right[name] else 'no'}" for name, value in asked(instruction).items()]
    score = pointwise_score(constraints_satisfied(instruction, response))
    return json.dumps({"REASONING": f"{', '.join(verdicts)}.", "SCORE": score})


def flip_examples(
    seed: int,
    prompts: PromptSet,
    write: Callable[[Attributes, random.Random], str] = write_response,
    name: str = "flip",
) -> Iterator[Example]:
    """FLIP prompt -> inferred instruction. The response's quality plays no part: no instruction is shown.

    `write` makes a response that shows these attributes; streams of another `name` have other random numbers.
    """
    rng = random.Random(f"{name}-{seed}")
    while True:
        response = maybe_damaged(write(draw_from_split("pretraining", rng), rng), rng)
        yield Example(prompts.flip_messages(response), flip_reply(response, rng))


def pointwise_examples(seed: int, prompts: PromptSet) -> Iterator[Example]:
    """Pointwise prompt -> score, for responses of every quality from none right to all right."""
    rng = random.Random(f"pointwise-{seed}")
    while True:
        instruction, attributes = draw_question(rng)
        response = maybe_damaged(write_response(corrupt(attributes, rng.random(), rng), rng), rng)
        yield Example(prompts.pointwise_messages(instruction, response), pointwise_reply(instruction, response))


def corpus(seed: int, num_texts: int, prompts: PromptSet, template: Callable[[Messages], str]) -> Iterator[str]:
    """Texts for the tokenizer: conversations of all three kinds, in the chat template's form."""
    rng = random.Random(f"corpus-{seed}")
    for _ in range(num_texts):
        attributes = draw_attributes(rng)
        instruction, response = render_instruction(attributes, rng), write_response(attributes, rng)
        for example in (
            Example([{"role": "user", "content": instruction}], response),
            Example(prompts.flip_messages(response), flip_reply(response, rng)),
            Example(prompts.pointwise_messages(instruction, response), pointwise_reply(instruction, response)),
        ):
            yield template(example.conversation())
