"""A training set from WildChat-1M, or from files of its schema: `python -m datasets_prep.wildchat`.

The data set is allenai/WildChat-1M on the Hugging Face hub; `prepare.py` describes options and output.
"""

from datasets_prep.prepare import main

if __name__ == "__main__":
    raise SystemExit(main(source="wildchat"))
