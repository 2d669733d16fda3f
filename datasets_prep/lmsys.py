"""A training set from LMSYS-Chat-1M, or from files of its schema: `python -m datasets_prep.lmsys`.

The data set is lmsys/lmsys-chat-1m on the Hugging Face hub; `prepare.py` describes options and output.
"""

from datasets_prep.prepare import main

if __name__ == "__main__":
    raise SystemExit(main(source="lmsys"))
