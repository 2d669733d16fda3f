"""`report.html`: one page, in one file, to look at a run: curves, configuration, rollouts.

    python -m open_instruct.report OUTPUT_DIR

Made from what a run leaves on disk (`config.json`, `metrics.jsonl`, `rollouts/*.jsonl`),
so it can be made while the run goes on and after it was killed: what is missing is left
out, what cannot be read is counted and said. The page needs no network and may not use
one: its content security policy names its own script and style by their hashes, so that
nothing that a model wrote can run in it, either.

Here the data is chosen, shortened and cleaned; `report_template.html` draws it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from flip_plugin.metrics import normalize_answer
from open_instruct.records_io import read_jsonl, to_jsonable, write_text_atomic

MAX_SAMPLES = 3000  # rollouts in the page: about 10 MB at 3 KB each, which a phone still opens
MAX_CHARS = 4000  # of any one text
MAX_POINTS = 2000  # on a curve: more than a screen has pixels

Row = dict[str, Any]


def write_report(output_dir: str | Path) -> Path:
    """Write `report.html` into a run's output directory, from whatever is there, and return its path."""
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        raise FileNotFoundError(f"no such output directory: {output_dir}")
    data = _collect(output_dir)
    path = output_dir / "report.html"
    write_text_atomic(path, _render(data))
    return path


def _collect(output_dir: Path) -> Row:
    """Everything that the page shows, as plain data."""
    notes: list[str] = []
    config = _read_config(output_dir / "config.json", notes)
    metrics = _read_metrics(output_dir / "metrics.jsonl", notes)
    shown, totals = _read_rollouts(sorted(output_dir.glob("rollouts/*.jsonl")), notes)
    curve_rows = _thin(metrics, MAX_POINTS)
    if len(curve_rows) < len(metrics):
        notes.append(f"The curves show {len(curve_rows)} of {len(metrics)} steps, evenly spread.")
    return {
        "name": visible(str(_find(config, ("run_name", "exp_name")) or output_dir.resolve().name)),
        "about": _about(config),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "notes": notes,
        "summary": _summary(metrics, totals),
        "evals": _eval_changes(metrics),
        "steps": [row["training_step"] for row in curve_rows],
        "charts": build_charts(curve_rows),
        "config": _shown_config(config),
        "rollouts": {**shown, "total": totals["samples"]},
        "limits": {"samples": MAX_SAMPLES, "chars": MAX_CHARS},
    }


def _render(data: Row) -> str:
    template = resources.files("open_instruct").joinpath("report_template.html").read_text(encoding="utf-8")
    script, style = (_between(template, f"<{tag}>", f"</{tag}>") for tag in ("script", "style"))
    fields = {
        "TITLE": html.escape(f"{data['name']} · run report"),
        "DATA": embed_json(data),
        "SCRIPT_HASH": _sha256(script),
        "STYLE_HASH": _sha256(style),
    }
    # One pass, so that a placeholder inside a response stays what it is: text.
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda match: fields[match[1]], template)


def _between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embed_json(value: Any) -> str:
    """JSON that is safe inside a script element: ASCII, and without any `<`, `>` or `&`.

    Those three occur only inside JSON strings, where an escape means the same.
    """
    text = json.dumps(to_jsonable(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- Reading ---------------------------------------------------------------------------


def _read_config(path: Path, notes: list[str]) -> Row:
    if not path.exists():
        notes.append("No config.json.")
        return {}
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        notes.append(f"config.json cannot be read: {error}")
        return {}
    return config if isinstance(config, dict) else {"config": config}


def _rows(path: Path, notes: list[str]) -> Iterator[Row]:
    bad_lines: list[int] = []
    yield from read_jsonl(path, bad_lines=bad_lines)
    if bad_lines:
        lines = f"line {bad_lines[0]}" if len(bad_lines) == 1 else f"{len(bad_lines)} lines"
        notes.append(f"{path.name}: left out {lines}, cut short or damaged (usual after a killed run).")


def _read_metrics(path: Path, notes: list[str]) -> list[Row]:
    """One row a step, in order; lines of the same step are merged, as training and eval may come apart."""
    if not path.exists():
        notes.append("No metrics.jsonl yet.")
        return []
    steps: dict[float, Row] = defaultdict(dict)
    for row in _rows(path, notes):
        if (step := number(row.get("training_step"))) is not None:
            steps[step].update(row)
    return [steps[step] for step in sorted(steps)]


def _read_rollouts(paths: Sequence[Path], notes: list[str]) -> tuple[Row, Row]:
    """The samples for the page, and totals over all of them.

    Two passes, so that a long run's rollouts never have to fit into memory: the first
    counts and notes where each sample belongs, the second keeps the chosen ones. A file
    that grows in between only gains lines at its end, past what was counted.
    """
    if not paths:
        notes.append("No rollouts yet.")
    places: list[tuple[float, str]] = []
    statuses: Counter[str] = Counter()
    missing = 0
    ends: list[int] = []
    for path in paths:
        for row in _rows(path, notes):
            places.append((number(row.get("training_step")) or 0, str(row.get("split"))))
            missing += number(row.get("score")) is None
            statuses[visible(_text(row.get("status")))] += 1
        ends.append(len(places))

    chosen = choose_evenly(places, MAX_SAMPLES)
    prompts = _Prompts()
    samples: list[Row] = []
    index = 0
    for path, end in zip(paths, ends, strict=True):
        for row in read_jsonl(path, bad_lines=[]):
            if index == end:
                break
            if index in chosen:
                samples.append(_sample(row, prompts))
            index += 1
    samples.sort(key=lambda sample: sample["step"] or 0)  # stable: a group stays together
    totals = {"samples": len(places), "missing": missing, "statuses": dict(statuses.most_common())}
    return {"samples": samples, "prompts": prompts.items}, totals


def choose_evenly(keys: Sequence[Any], limit: int) -> set[int]:
    """Positions of at most `limit` items, with as equal a share for each distinct key as there is.

    >>> sorted(choose_evenly(["a"] * 6 + ["b"], 3))
    [0, 3, 6]
    """
    places: dict[Any, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        places[key].append(position)
    chosen: set[int] = set()
    # Smallest first: what a small key does not need is shared among those still to come.
    by_size = sorted(_spread(sorted(places), limit), key=lambda key: len(places[key]))
    for done, key in enumerate(by_size):
        chosen.update(_spread(places[key], (limit - len(chosen)) // (len(by_size) - done)))
    return chosen


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, at even distances, or all of them when there are fewer."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _thin(rows: list[Row], limit: int) -> list[Row]:
    """Rows at even distances, and always the last and those with an evaluation, which are few."""
    kept = set(_spread(range(len(rows)), limit))
    return [
        row
        for i, row in enumerate(rows)
        if i in kept or i == len(rows) - 1 or any(key.startswith("eval/") for key in row)
    ]


_LARGEST = 1e300  # a page that subtracts two of them must not get infinity


def number(value: Any) -> float | None:
    """A finite number, or None for anything else (nan, inf and integers past any float, too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_LARGEST < value < _LARGEST else None


# --- Text ------------------------------------------------------------------------------

# Control characters but tab and newline, and those that turn the direction of what follows:
# harmless once escaped, but they hide what a response holds.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with hidden characters shown by their numbers.

    >>> visible("a\\x00b\\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text.replace("\r\n", "\n"))


def _text(value: Any) -> str:
    """A field that should be text, as text, whatever it is."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _clip(value: Any) -> Row:
    """A text as the page holds it: at most MAX_CHARS of it, and how many characters are left out."""
    text = _text(value)
    return {"text": visible(text[:MAX_CHARS]), **_left_out(text)}


def _left_out(text: str) -> Row:
    return {"left_out": len(text) - MAX_CHARS} if len(text) > MAX_CHARS else {}


def mark_shared(real: str, inferred: str) -> Row:
    """Where two texts share words, as the reward counts them (each occurrence once).

    Returns `real` and `inferred` as pieces of the text, by turns not shared and shared
    (so the first may be empty), and the three counts that the F1 is made of.

    >>> mark_shared("Write the sea.", "write, a hill")["real"]["pieces"]
    ['', 'Write', ' the sea.']
    """
    of_real, of_inferred = (Counter(normalize_answer(text).split()) for text in (real, inferred))
    shared = of_real & of_inferred
    return {
        "real": {"pieces": _pieces(real, shared), **_left_out(real)},
        "inferred": {"pieces": _pieces(inferred, shared), **_left_out(inferred)},
        "counts": [shared.total(), of_real.total(), of_inferred.total()],
    }


def _pieces(text: str, shared: Counter[str]) -> list[str]:
    """The first MAX_CHARS of a text, cut where it changes between not shared and shared."""
    left = shared.copy()
    pieces, space = [""], ""
    for part in re.split(r"(\s+)", text[:MAX_CHARS]):
        if not part or part.isspace():
            space += part  # waits for the next word: it is marked only between two marked ones
            continue
        # Normalising goes word by word: nothing in it looks across white space.
        words = Counter(normalize_answer(part).split())
        is_shared = bool(words) and words <= left
        if is_shared:
            left -= words
        was_shared = len(pieces) % 2 == 0
        if is_shared == was_shared:
            pieces[-1] += space + part
        elif is_shared:
            pieces[-1] += space
            pieces.append(part)
        else:
            pieces.append(space + part)
        space = ""
    if space:
        if len(pieces) % 2 == 0:
            pieces.append("")
        pieces[-1] += space
    return [visible(piece) for piece in pieces]


# --- Rollouts --------------------------------------------------------------------------


class _Prompts:
    """Prompts by number: every sample of a group has the same one, so the page holds it once."""

    def __init__(self) -> None:
        self.items: list[list[Row]] = []
        self._numbers: dict[str, int] = {}

    def add(self, messages: Any) -> int:
        if not isinstance(messages, list):
            messages = [{"role": "user", "content": messages}]
        key = json.dumps(messages)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append([self._turn(message) for message in messages])
        return self._numbers[key]

    @staticmethod
    def _turn(message: Any) -> Row:
        if not isinstance(message, dict):
            return {"role": "?", **_clip(message)}
        return {"role": visible(_text(message.get("role")))[:40], **_clip(message.get("content"))}


def _sample(row: Row, prompts: _Prompts) -> Row:
    """One rollout as the page holds it."""
    names = row.get("dataset") or []
    verifiers = [visible(_text(name))[:80] for name in (names if isinstance(names, list) else [names])]
    sample: Row = {
        "step": number(row.get("training_step")),
        "split": visible(_text(row.get("split"))) or "train",
        "status": visible(_text(row.get("status"))),
        "finish": visible(_text(row.get("finish_reason"))),
        "verifiers": verifiers,
        "prompt": prompts.add(row.get("messages", row.get("prompt"))),
        "response": _clip(row.get("response")),
        "reported": {visible(str(k)): number(v) for k, v in _mapping(row.get("reported")).items()},
    }
    for short, name in _NUMBERS.items():
        sample[short] = number(row.get(name))
    real = _ground_truth(row.get("ground_truth"), verifiers)
    if row.get("inferred_instruction") is not None:
        sample["overlap"] = mark_shared(real, _text(row["inferred_instruction"]))
    elif real:
        sample["truth"] = _clip(real)
    for name in ("reasoning", "error"):
        if row.get(name):
            sample[name] = _clip(row[name])
    return sample


_NUMBERS = {
    "score": "score",
    "reward": "reward",
    "advantage": "advantage",
    "echo": "echo",
    "tokens": "num_tokens",
    "group": "prompt_index",
    "sample": "sample_index",
    "weights": "weights_version",
    "judge_s": "judge_seconds",
}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ground_truth(value: Any, verifiers: list[str]) -> str:
    """The text to be recovered: with several verifiers, that of the one called flip."""
    if isinstance(value, list) and value:
        place = next((i for i, name in enumerate(verifiers) if "flip" in name.lower()), 0)
        value = value[min(place, len(value) - 1)]
    return _text(value)


# --- Summary and configuration ---------------------------------------------------------


def _summary(metrics: list[Row], totals: Row) -> Row:
    seconds = [s for row in metrics if (s := number(row.get("time/total"))) is not None]
    return {
        "steps": sum(row["training_step"] > 0 for row in metrics),  # 0 is an evaluation before the first
        "last_step": metrics[-1]["training_step"] if metrics else None,
        "samples": totals["samples"],
        "missing": totals["missing"],
        "statuses": totals["statuses"],
        "seconds": sum(seconds) if seconds else None,
        "median_seconds": median(seconds) if seconds else None,
    }


def _eval_changes(metrics: list[Row]) -> list[Row]:
    """Each evaluation metric with its values by step: rewards, what verifiers report, then the rest."""
    found: dict[str, Row] = {}
    for row in metrics:
        for key, value in row.items():
            if key.startswith("eval/") and number(value) is not None:
                entry = found.setdefault(key, {"name": visible(_title(key)), "steps": [], "values": []})
                entry["steps"].append(row["training_step"])
                entry["values"].append(value)

    def place(key: str) -> tuple[bool, bool, str]:
        return not key.endswith(("_reward", "/scores")), not key.endswith("_satisfied"), key

    keys = list(found)
    return [found[key] for key in sorted(keys, key=place) if not _repeats_verifier(key, keys, metrics)]


def _find(config: Any, names: Sequence[str]) -> Any:
    """The first of these settings anywhere in a nested configuration."""
    if not isinstance(config, dict):
        return None
    for name in names:
        if config.get(name):
            return config[name]
    return next((found for value in config.values() if (found := _find(value, names))), None)


def _about(config: Row) -> list[list[str]]:
    wanted = {
        "policy": ("model_name_or_path",),
        "judge": ("llm_judge_model", "judge_model"),
        "seed": ("seed",),
    }
    found = {label: _find(config, names) for label, names in wanted.items()}
    return [[label, visible(_text(value))[:200]] for label, value in found.items() if value is not None]


_SECRET = re.compile(r"api_?key|password|secret|(auth|access|hf|bearer)_?token|authorization", re.IGNORECASE)


def _shown_config(value: Any, name: str = "") -> Any:
    """The configuration, cleaned; a secret that got into it is hidden, since reports get passed on."""
    if isinstance(value, dict):
        return {visible(str(key)): _shown_config(item, str(key)) for key, item in value.items()}
    if value and _SECRET.search(name):
        return "(hidden)"
    if isinstance(value, list):
        return [_shown_config(item) for item in value]
    return visible(value[:MAX_CHARS]) if isinstance(value, str) else value


# --- Curves ----------------------------------------------------------------------------


class Chart(NamedTuple):
    """What one chart shows: metrics whose whole name matches, and the eval metrics next to them.

    `unit` is how values read: score, share (of 1, as a percentage), seconds, count or plain.
    `train` and `evals` are patterns; a group in one is the series' name.
    """

    section: str
    title: str
    unit: str
    train: str
    evals: str = ""
    note: str = ""
    kind: str = "line"


REWARD, POLICY, TIME, OTHERS = "Reward and judge", "Policy", "Time", "More"
CHARTS = (
    Chart(REWARD, "Reward", "score", "objective/scores", "eval/scores"),
    Chart(REWARD, "Reward by verifier", "score", "objective/(.+)_reward", "eval/(.+)_reward"),
    Chart(REWARD, "Constraints satisfied", "score",
          "objective/constraints_satisfied", "eval/constraints_satisfied"),
    Chart(REWARD, "Standard deviation of the reward", "score", "objective/scores_std", "eval/scores_std"),
    Chart(REWARD, "Groups without a signal", "count", "objective/groups_(.+)"),
    Chart(REWARD, "Invalid share", "share",
          "objective/(?:(.+)_)?invalid_frac", "eval/(?:(.+)_)?invalid_frac",
          "Samples whose judgement is missing."),
    Chart(REWARD, "Echo", "score", "objective/echo", "eval/echo",
          "Share of the instruction repeated word for word."),
    Chart(POLICY, "Response length", "count", "val/sequence_lengths", "eval/sequence_lengths", "In tokens."),
    Chart(POLICY, "Finished by itself", "share", "val/stop_rate", "eval/stop_rate"),
    Chart(POLICY, "Entropy", "plain", "(?:objective|policy|val)/entropy(?:_avg)?"),
    Chart(POLICY, "KL from the reference", "plain", "objective/kl(?:_avg)?"),
    Chart(POLICY, "Clip share", "share", "policy/clipfrac(?:_avg)?"),
    Chart(POLICY, "Probability ratio", "plain", "val/ratio"),
    Chart(POLICY, "Gradient norm", "plain", "(?:.+/)?grad_norm(?:_avg)?"),
    Chart(POLICY, "Policy loss", "plain", "loss/policy(?:_avg)?"),
    Chart(POLICY, "Learning rate", "plain", "lr"),
    Chart(TIME, "Step time", "seconds", "time/(waiting_for_batch|training|weight_sync|eval|total)",
          note="What the learner did with a step; the line is the whole step.", kind="stack"),
    Chart(TIME, "Generation and judging", "seconds", "time/(generation|judging)",
          note="Both go on while the learner trains."),
)  # fmt: skip
# They only grow with the step, and say nothing as a curve.
_NO_CURVE = {"training_step", "episode"}


def build_charts(rows: list[Row]) -> list[Row]:
    """The charts that have data, each with series of one value (or None) a row.

    A metric that no chart asks for gets a chart of its own, so that nothing is lost.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row if number(row[key]) is not None))
    keys = [key for key in keys if key not in _NO_CURVE and not _repeats_verifier(key, keys, rows)]
    drawn = []
    for chart in (*CHARTS, *_other_charts(keys)):
        series = [*_series(chart.train, keys, rows, False), *_series(chart.evals, keys, rows, True)]
        if series:
            shown = {name: getattr(chart, name) for name in ("section", "title", "unit", "note", "kind")}
            drawn.append({**shown, "series": series})
    return drawn


def _series(pattern: str, keys: Sequence[str], rows: list[Row], is_eval: bool) -> Iterator[Row]:
    for key in keys:
        if not pattern or not (match := re.fullmatch(pattern, key)):
            continue
        group = (match[1] or "" if match.groups() else "").replace("_", " ")
        name = ", ".join(part for part in (visible(group), "eval" if is_eval else "") if part) or "train"
        yield {"name": name, "eval": is_eval, "values": [_short(row.get(key)) for row in rows]}


def _short(value: Any) -> float | None:
    """A value to six digits, which is more than a screen shows and half of the bytes."""
    return None if (value := number(value)) is None else float(f"{value:.6g}")


def _repeats_verifier(key: str, keys: Sequence[str], rows: list[Row]) -> bool:
    """Whether this is an overall value of a run whose only verifier has the very same one."""
    prefix, _, name = key.partition("/")
    ending = {"scores": "_reward", "invalid_frac": "_invalid_frac"}.get(name)
    verifiers = [other for other in keys if ending and other.startswith(prefix) and other.endswith(ending)]
    return len(verifiers) == 1 and all(_short(row.get(key)) == _short(row.get(verifiers[0])) for row in rows)


def _other_charts(keys: Sequence[str]) -> Iterator[Chart]:
    """A chart for each metric that CHARTS does not name, with its evaluation if it has one."""
    left = [key for key in keys if not any(_wants(chart, key) for chart in CHARTS)]
    taken: set[str] = set()
    for key in sorted(left, key=lambda key: key.startswith("eval/")):  # an eval metric goes with its partner
        if key in taken:
            continue
        if key.startswith("eval/"):
            yield Chart(OTHERS, f"Eval: {visible(_title(key))}", "plain", "", re.escape(key))
            continue
        partner = "eval/" + key.partition("/")[2]
        evals = re.escape(partner) if partner in left and partner not in taken else ""
        taken.add(partner)
        yield Chart(OTHERS, visible(key), "plain", re.escape(key), evals)


def _wants(chart: Chart, key: str) -> bool:
    return any(pattern and re.fullmatch(pattern, key) for pattern in (chart.train, chart.evals))


def _title(key: str) -> str:
    """`eval/constraints_satisfied` as a person would write it: `constraints satisfied`."""
    return (key.partition("/")[2] or key).replace("_", " ")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m open_instruct.report", description="Write a run's report.html.")
    parser.add_argument("output_dir", type=Path, help="the run's --output_dir")
    try:
        print(write_report(parser.parse_args(argv).output_dir))
    except FileNotFoundError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
