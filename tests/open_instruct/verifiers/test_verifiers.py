"""gsm8k, math and string_f1 with real answers, and with hostile ones. IFEval is in test_ifeval.py."""

import asyncio
import json
import pickle
import subprocess
import sys
import time

import pytest

from flip_plugin.answers import worker_pool as workers
from flip_plugin.answers import worker_process as worker
from flip_plugin.answers.worker_pool import WorkerPool, close_shared_pool
from open_instruct.rewards.registry import build_all_verifiers
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.verifiers import F1Verifier, GSM8KVerifier, MathVerifier
from open_instruct.verifiers.base import BadLabel, MissingLibrary
from open_instruct.verifiers.checked import MAX_CHARACTERS
from open_instruct.verifiers.text import end_of, stated_answer, without_thinking

GSM8K, MATH, F1 = GSM8KVerifier(), MathVerifier(), F1Verifier()


@pytest.fixture(autouse=True, scope="module")
def no_workers_left():
    yield
    close_shared_pool()


@pytest.fixture(scope="module")
def short_pool_of_module():
    pool = WorkerPool(1, cpu_seconds=0.3)
    yield pool
    pool.close()


@pytest.fixture
def short_pool(short_pool_of_module, monkeypatch):
    """One worker whose checks may take 0.3 s of CPU."""
    monkeypatch.setattr("open_instruct.verifiers.checked.shared_pool", lambda: short_pool_of_module)
    return short_pool_of_module


@pytest.fixture
def new_pool(monkeypatch):
    """One worker, not started yet: what is on the path now counts."""
    pool = WorkerPool(1)
    monkeypatch.setattr("open_instruct.verifiers.checked.shared_pool", lambda: pool)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("response", "label", "score"),
    [
        ("Therefore the answer is -3", "-3", 1.0),
        ("Therefore the answer is +7", "+7", 1.0),
        ("Final answer: -3.5", "-3.5", 1.0),
        (r"The result is \boxed{-3}", "-3", 1.0),
        ("Therefore the answer is 3", "-3", 0.0),
        ("48 / 2 = 24 clips in May, so 48 + 24 = 72 in all.\n#### 72", "72", 1.0),
        ("He pays 3 * $4 = $12, then $6 more: $18.00.", "18", 1.0),
        ("It sells for **$1,000**.", "1000", 1.0),
        ("It sells for $1000", "1,000", 1.0),
        ("The answer is 5+3=8.", "8", 1.0),
        ("The answer must be below 50.\nIt is 42", "42", 1.0),
        ("#### 18\nLet me check: 3 * 6 = 18, and 18 < 20", "18", 0.0),
        ("They share 0.5 of it", "1/2", 1.0),
        ("So (18)", 18, 1.0),
        ("<think>maybe 7</think><answer>18 eggs</answer> out of 30", 18.0, 1.0),
        ("18 eggs", "16 - 3 - 4 = 9, 9 * 2 = 18\n#### 18", 1.0),
        ("eighteen", "18", 0.0),
        ("", "18", 0.0),
    ],
)
def test_gsm8k(response, label, score):
    result = GSM8K([], response, label)
    assert (result.score, result.status) == (score, "ok")


@pytest.mark.parametrize(
    ("response", "label", "score"),
    [
        (r"so we get \boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}", 1.0),
        (r"\boxed{\dfrac34}", r"\frac{3}{4}", 1.0),
        (r"\boxed{0.75}", r"\frac{3}{4}", 1.0),
        (r"Hence $\boxed{-\frac{1}{2}}$.", r"$-0.5$", 1.0),
        (r"\boxed{[0,1)}", "[0,1)", 1.0),
        (r"\boxed{[0,1]}", "[0,1)", 0.0),
        (r"\boxed{(-\infty,-1)\cup(1,\infty)}", r"(-\infty, -1) \cup (1, \infty)", 1.0),
        (r"\boxed{2, 1}", r"\{1,2\}", 1.0),
        (r"\boxed{\{1,3\}}", r"\{1,2\}", 0.0),
        (r"First \boxed{3}, no: \boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}", 1.0),
        (r"\boxed{3} and \boxed{4}", r"\{3, 4\}", 1.0),
        (r"\boxed{4}, no, that is wrong: \boxed{3}", "4", 0.0),
        (r"\boxed{5}", r"5\text{ cm}", 1.0),
        (r"\boxed{10\text{ m/s}}", "10", 1.0),
        (r"\boxed{5\%}", "0.05", 1.0),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
        (r"\boxed{(x+1)^3}", "x^2+2x+1", 0.0),
        (r"\boxed{x = 5}", "5", 1.0),
        (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", 1.0),
        (r"\boxed{3 - 2i}", "-2i+3", 1.0),
        (r"\boxed{\text{Monday}}", "Monday", 1.0),
        (r"\boxed{\text{(B)}}", r"\text{(B)}", 1.0),
        (r"\boxed{\text{(C)}}", r"\text{(B)}", 0.0),
        (r"\boxed{12{,}345}", "12345", 1.0),
        ("The final answer is $\\frac{2}{4}$. I hope it is correct.", r"\frac12", 1.0),
        ("<think>\\boxed{1}</think>The answer is 7.", 7, 1.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
    ],
)
def test_math(response, label, score):
    result = MATH([], response, label)
    assert (result.score, result.status) == (score, "ok")


@pytest.mark.parametrize(
    ("response", "label", "score"),
    [
        ("hello world", "hello world", 1.0),
        ("hello world", "hello", 2 / 3),
        ("hello world", "goodbye", 0.0),
        ("<think>goodbye</think>hello world", "hello", 2 / 3),
        ("<think>hm</think><answer>Hello, the World!</answer>", "hello world", 1.0),
        ("hello world", ["goodbye", "hello world"], 1.0),
        ("hello world", ["hello", "world"], 2 / 3),
        ("", "hello", 0.0),
        ("42", 42, 1.0),
    ],
)
def test_string_f1(response, label, score):
    assert F1([], response, label).score == pytest.approx(score)


def test_what_was_read_is_reported():
    assert MATH([], r"\boxed{4}", "5").details == {"answer": "4"}
    assert GSM8K([], "none", "5").details == {"answer": None}


@pytest.mark.parametrize(
    ("verifier", "label", "words"),
    [
        (GSM8K, "eighteen", "'eighteen' is not a number"),
        (GSM8K, ["18", "19"], "is a list"),
        (GSM8K, True, "is a bool"),
        (MATH, r"\frac{1}{2", "unbalanced braces"),
        (MATH, "}{", "unbalanced braces"),
        (MATH, "x" * 3000, "3000 characters"),
        (MATH, {"answer": "3"}, "is a dict"),
        (F1, {"a": 1}, "reference answer as text"),
        (F1, ["a", None], "reference answer as text"),
        (F1, [], "reference answer as text"),
    ],
)
async def test_unusable_labels(verifier, label, words):
    with pytest.raises(BadLabel, match=words):
        verifier.check_label(label)
    result = await verifier.async_call([], "18", label)
    assert (result.score, result.status) == (None, "unusable_label")
    assert words in (result.details or {})["error"]


def test_a_label_with_nothing_in_it():
    result = MATH([], "5", r"\boxed{}")
    assert (result.score, result.status) == (None, "unusable_label")


HOSTILE = {
    "tower of powers": r"\boxed{9^{9^{9^{9}}}}",
    "factorial": r"\boxed{(10^9)!}",
}


@pytest.mark.parametrize("response", HOSTILE.values(), ids=HOSTILE)
async def test_a_check_that_takes_too_long_is_missing(short_pool, response):
    started = time.monotonic()
    result = await MATH.async_call([], response, "5")
    assert (result.score, result.status) == (None, "timeout")
    assert "0.3 s of CPU" in (result.details or {})["error"]
    assert time.monotonic() - started < 30
    assert (await MATH.async_call([], r"\boxed{5}", "5")).score == 1.0  # in a new worker


def test_memory_is_bounded():
    code = (
        "from flip_plugin.answers import worker_process as worker;"
        "worker.OPERATIONS['big'] = 'builtins:bytearray'; worker.main()"
    )
    request = {"operation": "big", "arguments": {"source": 2 * worker.MEMORY_LIMIT}, "cpu_seconds": 5}
    told = subprocess.run([sys.executable, "-c", code], input=json.dumps(request), capture_output=True, text=True)
    assert "MemoryError" in json.loads(told.stdout)["error"]


@pytest.mark.parametrize("verifier", [GSM8K, MATH])
def test_huge_and_broken_responses(verifier):
    for response in [r"\boxed{" * 2_000, "\0\ud800" * 100, "{" * 50_000 + "5", "x " * 400_000]:
        assert verifier([], response, "7").score == 0.0
    assert verifier([], "reasoning $a$ and so on\n" * 30_000 + "The answer is 7.", "7").score == 1.0
    result = verifier([], "x" * (MAX_CHARACTERS + 1), "7")
    assert (result.score, result.status) == (None, "response_too_long")


def test_a_worker_that_dies_is_replaced(short_pool):
    assert GSM8K([], "5", "5").score == 1.0
    short_pool._workers[0]._process.kill()
    short_pool._workers[0]._process.wait()
    assert GSM8K([], "5", "5").score == 1.0


def test_a_worker_that_gets_no_cpu(monkeypatch):
    pool = WorkerPool(1, wall_seconds=0.01)
    monkeypatch.setattr("open_instruct.verifiers.checked.shared_pool", lambda: pool)
    result = GSM8K([], "5", "5")
    assert (result.score, result.status) == (None, "timeout")
    assert "within 0.01 s" in (result.details or {})["error"]
    pool.close()


def test_workers_end_with_their_parent():
    code = (
        "from flip_plugin.answers import worker_pool as workers; from open_instruct.verifiers import GSM8KVerifier;"
        "GSM8KVerifier()([], '5', '5');"
        "print(workers.shared_pool()._workers[0]._process.pid); import os; os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    worker = int(told.stdout)
    deadline = time.monotonic() + 20
    while _alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_two_hundred_responses_do_not_block_the_loop():
    rewards = RewardConfig({"gsm8k": GSM8K, "math": MATH, "string_f1": F1})
    turns, done = 0, False

    async def watch():
        nonlocal turns
        while not done:
            await asyncio.sleep(0.005)
            turns += 1

    watcher = asyncio.create_task(watch())
    results = await asyncio.gather(
        *(rewards.score_sample(f"So {k % 5}.", [], "3", ("gsm8k", "math", "string_f1")[k % 3]) for k in range(200))
    )
    done = True
    await watcher
    assert [result.reward for result in results[:3]] == [0.0] * 3 and results[18].reward == 10.0
    assert all(result.status == "ok" for result in results)
    assert turns > 20  # checks on the loop itself would leave it a turn or two


async def test_a_mixed_data_set():
    rewards = RewardConfig(build_all_verifiers(None), verification_reward=10.0)
    rows = [
        ("gsm8k", "18", "18", 10.0),
        (["math"], [r"\frac{1}{2}"], "0.5", 10.0),
        (["STRING_F1"], ["goodbye", "hello world"], "hello world", 10.0),
        (["gsm8k", "string_f1"], ["7", "seven"], "seven", 10.0),
        (["gsm8k", "math"], ["7", "7"], "7", 20.0),
        (["gsm8k", "math"], ["what", "7"], "7", None),
    ]
    for dataset, truth, response, reward in rows:
        assert (await rewards.score_sample(response, [], truth, dataset)).reward == reward


def test_upstreams_names():
    from open_instruct.ground_truth_utils import F1Verifier as Again

    assert Again is F1Verifier
    verifiers = build_all_verifiers(None)
    assert {"gsm8k", "math", "ifeval", "string_f1"} <= verifiers.keys()
    pickle.loads(pickle.dumps(verifiers))


def test_importing_loads_no_library():
    code = (
        "import sys, open_instruct.rewards.registry, open_instruct.verifiers;"
        "print([m for m in ('torch', 'sympy', 'math_verify', 'lm_eval', 'nltk', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_library_takes_the_locked_antlr_without_a_warning():
    code = r"from math_verify import parse, verify; print(verify(parse(r'$\frac12$'), parse('0.5')))"
    told = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("True\n", "")


def test_a_missing_library_is_named(new_pool, tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ModuleNotFoundError('gone', name='math_verify')")
    monkeypatch.syspath_prepend(tmp_path)
    for verifier in (GSM8K, MATH):
        with pytest.raises(MissingLibrary, match=r"'math_verify'.*open-instruct\[verifiers\]"):
            verifier.check()
    result = MATH([], "5", "5")
    assert (result.score, result.status) == (None, "missing_library")


def test_what_a_library_prints_is_no_reply(new_pool, tmp_path, monkeypatch, capfd):
    (tmp_path / "math_verify.py").write_text("print('hello')\nraise ModuleNotFoundError('gone', name='math_verify')")
    monkeypatch.syspath_prepend(tmp_path)
    assert MATH([], "5", "5").status == "missing_library"
    assert capfd.readouterr().out == ""


def test_the_answer_in_a_response():
    assert without_thinking("<|assistant|><think>a</think>b</think> <answer>c</answer> ") == "c"
    assert stated_answer("<answer>1</answer></think><answer>2</answer>, <answer> 3 </answer>!") == "3"
    assert stated_answer("<answer>open") == "open"
    assert end_of("one\ntwo\nthree", 7) == "three"
    assert end_of("abcdef", 3) == "def"


def test_the_pool_is_one_for_a_process(monkeypatch):
    pool = workers.shared_pool()
    assert workers.shared_pool() is pool
    monkeypatch.setattr(workers.os, "getpid", lambda: -1)
    assert workers.shared_pool() is not pool
