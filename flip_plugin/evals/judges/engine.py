"""Items x judges x methods x seeds -> judgements, resumable: what is on disk is not asked again.

A judge at a time, a seed at a time, all methods together, as many calls in flight as `max_concurrency` says.
Judgements are appended to ``judgements/<judge>.<method>.<seed>.jsonl`` as they come, and replies are in the
cache, so that a killed run has lost neither. A judgement that the judge's server failed (``judge_error``)
is kept as such, and asked for again by the next run of the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges.methods import MethodJudge, make_method
from flip_plugin.evals.judges.options import EvalOptions
from flip_plugin.evals.judges.spec import JudgeSpec, open_model
from flip_plugin.evals.records.items import EvalItem, Judgement, Key, has_failed
from flip_plugin.evals.records.journal import Journal

# After so many judgements in a row that the judge's server failed, nothing more is asked of it.
MAX_FAILURES_IN_A_ROW = 20

Applies = Callable[[EvalItem, str], bool]


class JudgeFailed(RuntimeError):
    """A judge's server fails on everything; the text is its own error."""


class Judgements(list[Judgement]):
    """Judgements, and in `errors` what ended a judge before it was asked everything, by the judge's name."""

    def __init__(self, judgements: Iterable[Judgement] = (), errors: Mapping[str, str] | None = None) -> None:
        super().__init__(judgements)
        self.errors = dict(errors or {})


def judge_items(
    items: Sequence[EvalItem],
    judges: Sequence[JudgeSpec],
    methods: Sequence[str],
    seeds: Sequence[int],
    run_dir: str | Path,
    options: EvalOptions,
    *,
    applies: Applies | None = None,
) -> Judgements:
    """All judgements, in the order judges, seeds, methods, items; those of `run_dir` are not asked for again.

    `applies(item, method)` says which items a method judges (all). A judge that fails `MAX_FAILURES_IN_A_ROW` times, or
    cannot be loaded, is given up, and the others go on; what it was not asked is missing from the list
    (`report_failures`).
    Raises `CommandError` when two items have one id, or another process is judging into `run_dir`.
    """
    from tqdm import tqdm

    ids = {item.id for item in items}
    if len(ids) != len(items):
        raise CommandError(f"{len(items)} items have {len(ids)} ids: each must have its own")
    with Journal(run_dir) as journal:
        work = {
            Key(spec.name, method, item.id, seed): item
            for spec in judges
            for seed in seeds
            for method in methods
            for item in items
            if applies is None or applies(item, method)
        }
        done = {one.key: one for one in journal.judgements() if one.key in work}
        open_work = {key: item for key, item in work.items() if key not in done or has_failed(done[key])}
        errors: dict[str, str] = {}
        with tqdm(total=len(work), initial=len(work) - len(open_work), unit="item", desc="judged") as bar:
            session = _Session(journal, options, bar, done, sum(map(_invalid, done.values())))
            for spec in judges:
                mine = {key: item for key, item in open_work.items() if key.judge == spec.name}
                error = _ask_one_judge(session, spec, mine) if mine else None
                if error is not None:
                    errors[spec.name] = error
    return Judgements((done[key] for key in work if key in done), errors)


def report_failures(judgements: Sequence[Judgement], judges: Sequence[JudgeSpec]) -> int:
    """Print on stderr which judges failed on what, with their own error text. The command's exit status: 0 or 1."""
    status = 0
    for spec in judges:
        failed = [one for one in judgements if one.judge == spec.name and has_failed(one)]
        ended = getattr(judgements, "errors", {}).get(spec.name)
        if not failed and ended is None:
            continue
        status = 1
        problem = f"it was given up ({ended})" if ended else f"{len(failed)} judgements failed ({failed[-1].error})"
        print(
            f"judge {spec.name}: {problem}. What it did not answer is missing, not wrong. "
            "Once it works, run the same command again: it asks for that alone.",
            file=sys.stderr,
        )
    return status


@dataclass
class _Session:
    """What the judges of one call of `judge_items` share; `done` and `invalid` grow."""

    journal: Journal
    options: EvalOptions
    bar: Any
    done: dict[Key, Judgement]
    invalid: int
    failed_in_a_row: int = field(default=0)

    def keep(self, judgement: Judgement) -> None:
        """On disk first. Raises `JudgeFailed` where there is no use in going on."""
        self.journal.append(judgement)
        before = self.done.get(judgement.key)
        self.done[judgement.key] = judgement
        self.invalid += _invalid(judgement) - (_invalid(before) if before else 0)
        self.bar.set_postfix(invalid=self.invalid, refresh=False)
        self.bar.update()
        lost = all(status == "judge_error" for status in judgement.statuses)
        self.failed_in_a_row = self.failed_in_a_row + 1 if lost else 0
        if self.failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise JudgeFailed(str(judgement.error))


def _ask_one_judge(session: _Session, spec: JudgeSpec, work: dict[Key, EvalItem]) -> str | None:
    """None when all was asked; else the reason why not, which is printed at once."""
    session.failed_in_a_row = 0
    session.bar.set_description(spec.name)
    try:
        with open_judge(spec, session.options) as client_of:
            for seed in dict.fromkeys(key.seed for key in work):
                client = client_of(seed)
                options = session.options.method_options()
                method = {
                    name: make_method(name, client, judge=spec.name, seed=seed, **options)
                    for name in dict.fromkeys(key.method for key in work if key.seed == seed)
                }
                todo = ((method[key.method], item) for key, item in work.items() if key.seed == seed)
                asyncio.run(_ask(session, todo, client.max_concurrency))
    except (JudgeFailed, CommandError) as error:
        reason = (
            f"it failed {MAX_FAILURES_IN_A_ROW} times in a row: {error}"
            if isinstance(error, JudgeFailed)
            else str(error)
        )
        session.bar.write(f"judge {spec.name} is given up: {reason}", file=sys.stderr)
        return reason
    return None


async def _ask(session: _Session, todo: Iterator[tuple[MethodJudge, EvalItem]], width: int) -> None:
    """As many items at a time as the client takes calls; it bounds the calls themselves."""

    async def worker() -> None:
        # One iterator for all: an item goes to the next free worker.
        for method, item in todo:
            session.keep(await method.judge(item))

    workers = [asyncio.create_task(worker()) for _ in range(width)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*workers, return_exceptions=True)


def _invalid(judgement: Judgement) -> int:
    return sum(status != "ok" for status in judgement.statuses)


@contextmanager
def open_judge(spec: JudgeSpec, options: EvalOptions) -> Generator[Callable[[int], Any]]:
    """``with open_judge(...) as client_of: client_of(seed)``: a `JudgeClient`, or one with its interface.

    An offline judge's model is loaded once for all its seeds and is gone at the end. It batches as much as it can:
    ``--max_concurrency`` is about servers.
    """
    with open_model(
        spec,
        timeout=options.timeout,
        max_concurrency=options.max_concurrency,
        cache_path=options.cache_of(spec),
        log_path=Path(options.output) / f"{spec.name}.engine.log",
    ) as client:
        yield lambda seed: client(
            seed=seed, temperature=options.temperature, max_tokens=options.max_tokens, thinking=options.thinking
        )
