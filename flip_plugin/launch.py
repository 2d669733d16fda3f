"""Run an unmodified script of upstream Open Instruct with FLIP as its verifier ``general-flip``.

    python -m flip_plugin.launch [FLIP OPTIONS] PATH/open_instruct/grpo_fast.py FLAGS...

The script runs as ``__main__``, as if Python had been started with it: same `sys.argv`,
same import order, its own checkout's `open_instruct` whatever else is installed. The one
difference is that `flip_plugin.verifier` is imported right after the script itself has
imported `open_instruct.ground_truth_utils`; upstream then finds `FlipVerifier` among the
subclasses. Options before the script become ``FLIP_*`` variables, which upstream, like
``PYTHONPATH``, hands on to its Ray workers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import site
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from flip_plugin.plugins import VERIFIER_GROUP
from flip_plugin.reward.environment_variables import (
    MISSING_SCORE,
    PROMPT_OPENS_THINK,
    VARIABLES,
    missing_score,
    options_from_env,
    prompt_opens_think,
)

PACKAGE = "open_instruct"
HOOKED = f"{PACKAGE}.ground_truth_utils"
# How many folders above a script its checkout may begin: PATH/open_instruct/x.py, PATH/scripts/train/x.py.
MOST_LEVELS = 3
# Not options here: a key would stand in the process list; upstream's rows name the target
# themselves, and it does not tell its verifiers why a response ended.
NOT_OFFERED = {"api_key", "target", "skip_truncated"}
# A worker's current folder may be another than this process's.
PATHS = {"prompts", "cache_path", "record"}
# Variable -> what it is, for those that are no option of `FlipReward`.
LAUNCHER_VARIABLES = {
    MISSING_SCORE: "what a sample gets whose judgement failed (default 0)",
    PROMPT_OPENS_THINK: "true: the policy's chat template ends with <think>, so that a response without "
    "</think> is an unfinished thought and not judged (default false)",
}

HELP = """
Everything after the script is the script's own and reaches it untouched.

Train with FLIP as the reward (a judge's server must be up: `flip serve --model Qwen/Qwen3-4B`):

  export HOSTED_VLLM_API_BASE=http://127.0.0.1:8000/v1
  python -m flip_plugin.launch --flip_echo strip --flip_record_calls_to judge_calls \\
      open-instruct/open_instruct/grpo_fast.py \\
      --dataset_mixer_list NAME/ROWS 1.0 --dataset_mixer_list_splits train \\
      --llm_judge_model hosted_vllm/Qwen/Qwen3-4B --llm_judge_temperature 0 --llm_judge_timeout 600 ...

Its rows:  messages      list of {"role", "content"}: the prompt
           ground_truth  the exact instruction to be recovered, as text: one user turn whole, several
                         turns the last user turn, with a system prompt the system prompt
           dataset       general-flip

Reuse rows that are tagged for another judge. Their ground_truth must be that text all the same, not a
reference answer (the log says so where it does not stand in the prompt):

  python -m flip_plugin.launch PATH/open_instruct/grpo_fast.py --remap_verifier general-quality=general-flip ...

The judge's model, temperature, lengths and timeout are upstream's --llm_judge_* flags; a FLIP option or
variable of the same meaning goes first. Upstream cannot take a missing score: requests are repeated until
the timeout, then the sample gets --flip_missing_score; the log counts such samples. docs/open_instruct.md
has more.
"""


class LaunchError(ValueError):
    """What the user has to change; printed without a traceback."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Ends as the script ends; with status 2 and a line of text for wrong use."""
    parser = _parser()
    head, script, flags = split_arguments(sys.argv[1:] if argv is None else argv)
    given = vars(parser.parse_args(head))
    if script is None:
        parser.error("no script to run: name one, e.g. PATH/open_instruct/grpo_fast.py (--help shows how)")
    try:
        root = checkout_of(Path(script))
        set_environment(given)
        set_paths(root, Path(script))
    except ValueError as error:
        parser.error(str(error))
    sys.exit(run(script, flags))


def split_arguments(argv: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """FLIP's options, the script, and the script's flags. The script is the first argument that ends in ``.py``.

    >>> split_arguments(["--flip_echo", "strip", "open_instruct/grpo_fast.py", "--seed", "1"])
    (['--flip_echo', 'strip'], 'open_instruct/grpo_fast.py', ['--seed', '1'])
    """
    at = next((i for i, word in enumerate(argv) if word.endswith(".py") and not word.startswith("-")), None)
    if at is None:
        return list(argv), None, []
    return list(argv[:at]), argv[at], list(argv[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flip_plugin.launch",
        usage="%(prog)s [FLIP OPTIONS] PATH/open_instruct/grpo_fast.py FLAGS...",
        description="Run an unmodified script of upstream Open Instruct with FLIP as the verifier general-flip.",
        epilog=textwrap.dedent(HELP),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    offered = {variable.name: variable.help for option, variable in VARIABLES.items() if option not in NOT_OFFERED}
    for name, text in {**offered, **LAUNCHER_VARIABLES}.items():
        parser.add_argument(f"--{name.lower()}", metavar="VALUE", dest=name, help=text.replace("%", "%%"))
    return parser


def checkout_of(script: Path) -> Path:
    """The folder with the package `open_instruct` that `script` belongs to. Raises `LaunchError`."""
    if not script.is_file():
        raise LaunchError(f"no script {str(script)!r} (the current folder is {Path.cwd()})")
    for folder in list(script.absolute().parents)[:MOST_LEVELS]:
        module = folder / PACKAGE / "ground_truth_utils.py"
        if module.is_file():
            break
    else:
        raise LaunchError(
            f"{script} belongs to no checkout of Open Instruct: neither its folder nor the two above have "
            f"{PACKAGE}/ground_truth_utils.py. Give the path of a script inside one, "
            "e.g. open-instruct/open_instruct/grpo_fast.py"
        )
    # Our own trainer reads this group of entry points: it needs no launcher.
    if VERIFIER_GROUP in module.read_text(encoding="utf-8"):
        raise LaunchError(
            f"{folder / PACKAGE} is this project's own trainer, not upstream's; it has FLIP without a launcher: run "
            f"`python {script} ...` (or scripts/train/grpo_flip.sh), with --flip_* among its flags. "
            "For upstream, give the path of a script in a checkout of github.com/allenai/open-instruct"
        )
    return folder


def set_environment(given: Mapping[str, str | None], environ: Any = None) -> None:
    """Put the options that were given into `environ`, paths absolute. Raises ValueError for a value of no use."""
    environ = os.environ if environ is None else environ
    environ.update({variable: value for variable, value in given.items() if value is not None})
    for option in PATHS:
        variable = VARIABLES[option].name
        if environ.get(variable):
            environ[variable] = str(Path(environ[variable]).absolute())
    options_from_env(environ)
    missing_score(environ)
    prompt_opens_think(environ)


def set_paths(root: Path, script: Path) -> None:
    """Let this process, and workers by ``PYTHONPATH``, import `root`'s `open_instruct` and `flip_plugin`.

    Raises `LaunchError` when another `open_instruct` comes first all the same.
    """
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        # ``python -m`` put the current folder there, ``python script`` the script's.
        sys.path[0] = str(script.absolute().parent)
    sys.path.insert(1, str(root))
    ours = str(Path(__file__).absolute().parents[1])
    installed = ours in [*site.getsitepackages(), site.getusersitepackages()]
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    paths = [str(root), *inherited] if installed else [str(root), *inherited, ours]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if not installed and ours not in sys.path:
        sys.path.append(ours)
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations if spec else None) or []]
    if (root / PACKAGE).resolve() not in folders:
        raise LaunchError(
            f"`import {PACKAGE}` finds {folders[0] if folders else 'nothing'} instead of {root / PACKAGE}: "
            "start a fresh Python for each run, and uninstall the other from this environment "
            "(`pip uninstall open-instruct`)"
        )


def run(script: str, flags: Sequence[str]) -> None:
    """Run `script` as ``__main__`` with `flags`, FLIP registered when it imports upstream's verifiers."""
    hook = AfterImport(HOOKED, register)
    sys.meta_path.insert(0, hook)
    sys.argv[1:] = flags
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.meta_path.remove(hook)
        failed = sys.exc_info()[0] not in (None, SystemExit)
        if not hook.done and not failed:
            _print(f"{script} never imported {HOOKED}: FLIP had no part in this run")


class AfterImport(MetaPathFinder):
    """Calls `then(module)` once `name` has been imported by whoever does so first; imports nothing itself."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.then = then
        self.done = False
        self._searching = False

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders have for `name`, with a loader that calls `then` after the module has run."""
        if fullname != self.name or self._searching:
            return None
        self._searching = True  # another hook of this kind asks all finders, too
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_then(module: ModuleType) -> None:
                execute(module)
                self.then(module)
                self.done = True

            spec.loader.exec_module = execute_and_then
        return spec


def register(ground_truth_utils: ModuleType) -> None:
    """Make `FlipVerifier` known to upstream, and the only one that is called ``general-flip``."""
    import flip_plugin.verifier

    # The published fork has a judge type of that name, which would take the class's place.
    replaced = getattr(ground_truth_utils, "JUDGE_PROMPT_MAP", {}).pop("flip", None)
    verifier = flip_plugin.verifier.FlipVerifier
    note = " (in place of this checkout's judge type 'flip')" if replaced is not None else ""
    _print(f"general-flip is {verifier.__module__}.{verifier.__qualname__}{note}")


def _print(text: str) -> None:
    print(f"[flip_plugin] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
