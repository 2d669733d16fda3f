"""Ranking judges over a stub server, and what stands in its requests: what their tests share."""

import json
import re

from flip_plugin.reward.listwise import ListwiseJudge
from flip_plugin.reward.pairwise import PairwiseJudge

ASKED = "Name a colour"
OVERFLOW = (400, "maximum context length is 10 tokens")


def listwise(judge, **options):
    return ListwiseJudge("hosted_vllm/m", judge.base, timeout=5, max_attempts=1, **options)


def pairwise(judge, **options):
    return PairwiseJudge("hosted_vllm/m", judge.base, timeout=5, max_attempts=1, **options)


def names(index, **more):
    return json.dumps({"REASONING": "r", "BEST_RESPONSE_INDEX": index, **more})


def prefers(letter):
    return json.dumps({"REASONING": "r", "BETTER_RESPONSE": letter})


def user(body):
    return body["messages"][1]["content"]


def blocks(text):
    """What stands between the tags of a request, by tag."""
    return dict(re.findall(r"<(response_\w+)>\n(.*?)\n</\1>", text, re.DOTALL))


def both(body):
    found = blocks(user(body))
    return found["response_a"], found["response_b"]


def best_place(body, wanted):
    return next(int(tag.split("_")[1]) for tag, text in blocks(user(body)).items() if text == wanted)
