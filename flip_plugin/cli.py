"""The command ``flip``: score, rescore, inspect, eval, serve.

A command is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(args)`, in `flip_plugin.commands`, and a line
in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flip_plugin.commands import inspect, rescore, score, serve
from flip_plugin.errors import CommandError
from flip_plugin.evals import commands as evals

COMMANDS = {
    "score": (score, "judge the responses in a JSONL file"),
    "rescore": (rescore, "score recorded judge calls again, without a judge"),
    "inspect": (inspect, "read recorded judge calls, shared words coloured"),
    "eval": (evals, "evaluate judge models: RewardBench 2, best of N, robustness, ..."),
    "serve": (serve, "serve a judge model with vLLM on Ray"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (0 done, 1 failed, 2 wrong use, 130 stopped)."""
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command][0].run(args)
    except (CommandError, ImportError, ValueError) as error:
        print(f"flip {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"flip {args.command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `flip inspect ... | head`
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"flip {args.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flip",
        description="Rewards from backward inference: a judge reads a response and infers its instruction; the "
        "reward is how much of the real one it recovers.",
        epilog="flip COMMAND --help explains each.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
