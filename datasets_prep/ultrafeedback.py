"""A training set from UltraFeedback, or from files of its schema: `python -m datasets_prep.ultrafeedback`.

The data set is openbmb/UltraFeedback on the Hugging Face hub; `prepare.py` describes options and output.
"""

from datasets_prep.prepare import main

if __name__ == "__main__":
    raise SystemExit(main(source="ultrafeedback"))
