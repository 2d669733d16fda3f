"""`python -m open_instruct.report RUN [RUN ...] [-o FILE]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from open_instruct.report import write_comparison, write_report


def main(argv: Sequence[str] | None = None) -> None:
    """Print the path of the page. One run's page goes into its folder unless `-o` says where."""
    parser = argparse.ArgumentParser(
        "python -m open_instruct.report", description="Write a run's report.html, or one page over several runs."
    )
    parser.add_argument("output_dir", type=Path, nargs="+", help="a run's --output_dir")
    parser.add_argument("-o", "--output", type=Path, help="the page; for several runs comparison.html if not given")
    args = parser.parse_args(argv)
    try:
        if args.output is None and len(args.output_dir) == 1:
            print(write_report(args.output_dir[0]))
        else:
            print(write_comparison(args.output_dir, args.output or Path("comparison.html")))
    except FileNotFoundError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
