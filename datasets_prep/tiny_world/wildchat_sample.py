"""Conversations of the tiny world in the schema of allenai/WildChat-1M, with everything that a filter must find.

Most are one English question and its answer. The others are what makes the real set hard to use: conversations of
several turns, other languages, toxic and redacted ones, exact and near duplicates, empty, very short and very long
questions. `KINDS` has their shares; the kind of a row stands nowhere in it.
"""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from datasets_prep.tiny_world.language.grammar import draw_from_split, render_instruction, write_response

if TYPE_CHECKING:
    from datasets import Features

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "harassment_threatening",
    "hate",
    "hate/threatening",
    "hate_threatening",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "self_harm",
    "self_harm_instructions",
    "self_harm_intent",
    "sexual",
    "sexual/minors",
    "sexual_minors",
    "violence",
    "violence/graphic",
    "violence_graphic",
)
DETOXIFY = ("identity_attack", "insult", "obscene", "severe_toxicity", "sexual_explicit", "threat", "toxicity")
MODELS = ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-4-0314")
COUNTRIES = (("United States", "California"), ("Germany", "Hamburg"), ("Brazil", None), (None, None))
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)")

# Kind -> its share of the conversations.
KINDS = {
    "plain": 0.56,
    "turns": 0.14,
    "foreign": 0.08,
    "duplicate": 0.06,
    "near_duplicate": 0.06,
    "redacted": 0.04,
    "toxic": 0.02,
    "short": 0.02,
    "long": 0.01,
    "empty": 0.01,
}
FOREIGN = {
    "German": (
        "Schreibe einen kurzen Brief an einen alten Freund über das Wetter.",
        "Lieber Freund, es hat den ganzen Tag geregnet.",
    ),
    "French": (
        "Écris une petite histoire pour les enfants avec un chat et une lanterne.",
        "Il était une fois un chat qui portait une lanterne.",
    ),
    "Spanish": ("Escribe un poema sobre el mar y termina con una pregunta.", "El mar canta de noche. ¿Lo oyes tú?"),
    "Russian": ("Напиши короткое письмо старому другу о зиме.", "Дорогой друг, снег идёт уже неделю."),
}


def wildchat_features() -> Features:
    """The features of allenai/WildChat-1M, as its card declares them."""
    from datasets import Features, List, Value

    string, boolean, number = Value("string"), Value("bool"), Value("float64")
    time = Value("timestamp[us, tz=UTC]")
    header = {"accept-language": string, "user-agent": string}
    turn = {
        "content": string,
        "country": string,
        "hashed_ip": string,
        "header": header,
        "language": string,
        "redacted": boolean,
        "role": string,
        "state": string,
        "timestamp": time,
        "toxic": boolean,
        "turn_identifier": Value("int64"),
    }
    moderation = {
        "categories": dict.fromkeys(CATEGORIES, boolean),
        "category_scores": dict.fromkeys(CATEGORIES, number),
        "flagged": boolean,
    }
    return Features(
        {
            "conversation_hash": string,
            "model": string,
            "timestamp": time,
            "conversation": List(turn),
            "turn": Value("int64"),
            "language": string,
            "openai_moderation": List(moderation),
            "detoxify_moderation": List(dict.fromkeys(DETOXIFY, number)),
            "toxic": boolean,
            "redacted": boolean,
            "state": string,
            "country": string,
            "hashed_ip": string,
            "header": header,
        }
    )


def _question(rng: random.Random) -> tuple[str, str]:
    attributes = draw_from_split("train", rng)
    return render_instruction(attributes, rng), write_response(attributes, rng)


def _exchanges(
    kind: str, earlier: list[list[tuple[str, str]]], rng: random.Random
) -> tuple[list[tuple[str, str]], str]:
    """(questions with their answers, language) of a conversation of a kind."""
    question, answer = _question(rng)
    single = [pairs for pairs in earlier if len(pairs) == 1]
    if kind == "turns":
        return [(question, answer), *(_question(rng) for _ in range(rng.randint(1, 3)))], "English"
    if kind == "foreign":
        language = rng.choice(sorted(FOREIGN))
        return [FOREIGN[language]], language
    if kind in ("duplicate", "near_duplicate") and single:
        question = rng.choice(single)[0][0]
        if kind == "near_duplicate":
            question = rng.choice(("Please: {}", "{} Thank you!", "{}  ")).format(question)
    elif kind == "short":
        question, answer = "hi", "Hello. What shall I write?"
    elif kind == "redacted":
        question = f"My name is NAME_1. {question}"
    elif kind == "toxic":
        question = f"You useless pile of rust. {question}"
    elif kind == "long":
        question = " ".join([question] * 120)
    elif kind == "empty":
        question = ""
    return [(question, answer)], "English"


def _row(pairs: list[tuple[str, str]], language: str, kind: str, number: int, rng: random.Random) -> dict[str, Any]:
    start = datetime(2023, 4, 9, tzinfo=UTC) + timedelta(minutes=number)
    country, state = rng.choice(COUNTRIES)
    ip = hashlib.sha256(f"visitor {rng.randrange(50)}".encode()).hexdigest()
    header = {"accept-language": "en-US,en;q=0.9", "user-agent": rng.choice(AGENTS)}
    texts = [text for pair in pairs for text in pair]
    turns = []
    for place, text in enumerate(texts):
        asked = place % 2 == 0
        turns.append(
            {
                "content": text,
                "country": country if asked else None,
                "hashed_ip": ip if asked else None,
                "header": header if asked else None,
                "language": language,
                "redacted": asked and kind == "redacted",
                "role": "user" if asked else "assistant",
                "state": state if asked else None,
                "timestamp": None if asked else start + timedelta(seconds=20 * place),
                "toxic": asked and kind == "toxic",
                "turn_identifier": 100_000 + 100 * number + place // 2,
            }
        )
    scores = [0.9 if turn["toxic"] else 0.001 for turn in turns]
    return {
        "conversation_hash": hashlib.md5("\n".join(texts).encode(), usedforsecurity=False).hexdigest(),
        "model": rng.choice(MODELS),
        "timestamp": turns[-1]["timestamp"],
        "conversation": turns,
        "turn": len(pairs),
        "language": language,
        "openai_moderation": [
            {
                "categories": {name: score > 0.5 and name == "harassment" for name in CATEGORIES},
                "category_scores": {name: score if name == "harassment" else 0.0001 for name in CATEGORIES},
                "flagged": score > 0.5,
            }
            for score in scores
        ],
        "detoxify_moderation": [
            {name: score if name in ("insult", "toxicity") else 0.0001 for name in DETOXIFY} for score in scores
        ],
        "toxic": kind == "toxic",
        "redacted": kind == "redacted",
        "state": state,
        "country": country,
        "hashed_ip": ip,
        "header": header,
    }


def wildchat_rows(seed: int, count: int) -> list[dict[str, Any]]:
    """`count` conversations; one seed always gives the same ones."""
    rng = random.Random(f"wildchat-{seed}")
    rows: list[dict[str, Any]] = []
    earlier: list[list[tuple[str, str]]] = []
    for number in range(count):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        pairs, language = _exchanges(kind, earlier, rng)
        rows.append(_row(pairs, language, kind, number, rng))
        if kind in ("plain", "turns"):
            earlier.append(pairs)
    return rows
