"""What a judge that knows says, for tests."""

import json
import re


def answers(body):
    """A judge that knows its methods: the response that says "good" is better, by every one of them."""
    system, user = (turn["content"] for turn in body["messages"])
    if "BEST_RESPONSE_INDEX" in system + user:
        shown = re.findall(r"<response_(\d)>\n(.*?)\n</response_", user, re.DOTALL)
        return json.dumps(
            {"REASONING": "r", "BEST_RESPONSE_INDEX": next(int(i) for i, text in shown if "good" in text)}
        )
    if "BETTER_RESPONSE" in system + user:
        first, second = user.find("good"), user.find("bad")
        return json.dumps({"REASONING": "r", "BETTER_RESPONSE": "A" if 0 <= first < second else "B"})
    if "SCORE" in system + user:
        return json.dumps({"REASONING": "r", "SCORE": 9 if "good" in user else 2})
    return json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": "Say it well" if "good" in user else "Sing"})
