"""Rows in the exact schemas of the sources, and a short way to prepare them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TINY_TOKENIZER = str(Path(__file__).parents[2] / "datasets_prep" / "tiny_world" / "models" / "policy")

_TEXT, _FLAG, _WHEN = pa.string(), pa.bool_(), pa.timestamp("us", tz="UTC")
_HEADER = pa.struct([("accept-language", _TEXT), ("user-agent", _TEXT)])
_TURN = pa.struct(
    [
        ("content", _TEXT),
        ("country", _TEXT),
        ("hashed_ip", _TEXT),
        ("header", _HEADER),
        ("language", _TEXT),
        ("redacted", _FLAG),
        ("role", _TEXT),
        ("state", _TEXT),
        ("timestamp", _WHEN),
        ("toxic", _FLAG),
        ("turn_identifier", pa.int64()),
    ]
)
_KINDS = ("harassment", "harassment/threatening", "hate", "hate/threatening", "self-harm", "sexual", "violence")
_MODERATION = pa.struct(
    [
        ("categories", pa.struct([(kind, _FLAG) for kind in _KINDS])),
        ("category_scores", pa.struct([(kind, pa.float64()) for kind in _KINDS])),
        ("flagged", _FLAG),
    ]
)
_DETOXIFY = pa.struct([(kind, pa.float64()) for kind in ("identity_attack", "insult", "obscene", "toxicity")])
WILDCHAT = pa.schema(
    [
        ("conversation_hash", _TEXT),
        ("model", _TEXT),
        ("timestamp", _WHEN),
        ("conversation", pa.list_(_TURN)),
        ("turn", pa.int64()),
        ("language", _TEXT),
        ("openai_moderation", pa.list_(_MODERATION)),
        ("detoxify_moderation", pa.list_(_DETOXIFY)),
        ("toxic", _FLAG),
        ("redacted", _FLAG),
        ("state", _TEXT),
        ("country", _TEXT),
        ("hashed_ip", _TEXT),
        ("header", _HEADER),
    ]
)
_PLAIN_TURNS = pa.list_(pa.struct([("content", _TEXT), ("role", _TEXT)]))
LMSYS = pa.schema(
    [
        ("conversation_id", _TEXT),
        ("model", _TEXT),
        ("conversation", _PLAIN_TURNS),
        ("turn", pa.int64()),
        ("language", _TEXT),
        ("openai_moderation", pa.list_(_MODERATION)),
        ("redacted", _FLAG),
    ]
)


def turns_of(*texts):
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def wildchat(number, *texts, **changes):
    """A row of WildChat-1M; without texts, a prompt of its own."""
    turns = turns_of(*(texts or (prompt(number), "Of course.")))
    labels = {
        "language": changes.get("language", "English"),
        "toxic": changes.get("toxic", False),
        "redacted": changes.get("redacted", False),
    }
    return {
        "conversation_hash": f"{number:032x}",
        "model": "gpt-3.5-turbo-0301",
        "timestamp": 1_681_000_000_000_000 + number,
        "conversation": [turn | labels | {"turn_identifier": number, "timestamp": None} for turn in turns],
        "turn": len(turns) // 2,
        "openai_moderation": [{"flagged": False} for _ in turns],
        "detoxify_moderation": [{"toxicity": 0.01} for _ in turns],
        "country": "Norway",
        **labels,
    } | changes


WORDS = (
    "river",
    "harbour",
    "lantern",
    "copper",
    "winter",
    "orchard",
    "signal",
    "museum",
    "railway",
    "pepper",
    "violin",
    "basket",
    "desert",
    "engine",
    "forest",
    "mirror",
    "planet",
    "quarry",
    "saddle",
    "temple",
    "umbrella",
    "valley",
    "window",
    "yellow",
    "anchor",
    "bridge",
    "candle",
    "dragon",
    "eagle",
    "falcon",
)


def prompt(number):
    """Prompts that resemble no other one: eight words by the number's own digits."""
    picked = []
    for place in range(8):
        number = (number * 6364136223846793005 + 1442695040888963407 + place) % 2**64
        picked.append(WORDS[(number >> 33) % len(WORDS)])
    return "Write a story: " + " ".join(picked)


def write(path, rows, schema=None, **options):
    """Rows to .jsonl or .parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
