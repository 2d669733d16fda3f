"""ifeval: each instruction followed and not followed; labels old and new; without NLTK's data and with it."""

import json

import pytest

from flip_plugin.answers.worker_pool import close_shared_pool
from open_instruct.verifiers import IFEvalVerifier
from open_instruct.verifiers.base import BadLabel
from open_instruct.verifiers.ifeval import requirements_of
from open_instruct.verifiers.ifeval_functions import FUNCTIONS

IFEVAL = IFEvalVerifier()


@pytest.fixture(autouse=True, scope="module")
def nltk_data(tmp_path_factory):
    """An empty folder where NLTK looks for its data first."""
    folder = tmp_path_factory.mktemp("nltk_data")
    close_shared_pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLTK_DATA", str(folder))
        patch.setenv("HOME", str(folder))
        yield folder
        close_shared_pool()


def label(instruction, **kwargs):
    return {"instruction_id": [instruction], "kwargs": [kwargs]}


FRENCH = "Bonjour tout le monde, je suis très content de vous voir ici aujourd'hui."
ENGLISH = "the quick brown fox was jumping over the lazy dog because it wanted to."
# instruction, kwargs, a response that follows it, one that does not
INSTRUCTIONS = [
    ("keywords:existence", {"keywords": ["sea", "ship"]}, "A Ship at sea", "A ship"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea, Sea", "sea"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "a seal", "the Sea"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "z", "zZ"),
    ("language:response_language", {"language": "fr"}, FRENCH, ENGLISH),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "First.\n\nThen, second.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Dear you\nP.S. hello", "Dear you"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "a *word* here", "a word here"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "A title\ntext"),
    ("combination:two_responses", {}, "one ****** two", "one"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a fish."}, "Name a fish. Cod.", "Cod."),
    ("startend:end_checker", {"end_phrase": "The end."}, "Once. The end.", "The end. Or not"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    ("punctuation:no_comma", {}, "no comma here", "one, here"),
    ("startend:quotation", {}, '"all of it"', '"some" of it'),
]
WITH_PUNKT = [
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Only one sentence here.",
        "One is here. Two are here. Three are here.",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "GO AWAY now.",
        "Go away now.",
    ),
]


@pytest.mark.parametrize(("instruction", "kwargs", "good", "bad"), INSTRUCTIONS, ids=[case[0] for case in INSTRUCTIONS])
def test_each_instruction(instruction, kwargs, good, bad):
    wanted = label(instruction, **kwargs)
    IFEVAL.check_label(wanted)
    assert (IFEVAL([], good, wanted).score, IFEVAL([], bad, wanted).score) == (1.0, 0.0)
    assert IFEVAL([], f"<think>{bad}</think>{good}", wanted).score == 1.0


def test_these_are_all_instructions():
    with pytest.raises(BadLabel, match="there are") as raised:
        IFEVAL.check_label(label("copy:repeat_phrase"))
    known = str(raised.value).partition("there are ")[2].split(", ")
    assert sorted(known) == sorted(case[0] for case in [*INSTRUCTIONS, *WITH_PUNKT])


@pytest.fixture
def without_punkt(nltk_data):
    if IFEVAL([], "A.", label(WITH_PUNKT[0][0], **WITH_PUNKT[0][1])).status == "ok":
        pytest.skip("this machine has NLTK's punkt_tab in a system folder")


@pytest.mark.parametrize(("instruction", "kwargs", "good", "bad"), WITH_PUNKT)
def test_without_nltks_data_the_score_is_missing(without_punkt, instruction, kwargs, good, bad, capfd):
    wanted = label(instruction, **kwargs)
    result = IFEVAL([], good, wanted)
    assert (result.score, result.status) == (None, "missing_data")
    assert "nltk.downloader punkt_tab" in (result.details or {})["error"]
    with pytest.raises(BadLabel, match="punkt_tab fetches it"):
        IFEVAL.check_label(wanted)
    assert capfd.readouterr() == ("", "")  # and nothing tried to fetch it


def test_with_nltks_data(without_punkt, nltk_data):
    """The data's form, trained here on a few sentences."""
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    trainer = PunktTrainer()
    trainer.train("It rained. We stayed in. Nobody minded. It was warm. The day went by. " * 20)
    folder = nltk_data / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    save_punkt_params(trainer.get_params(), dir=str(folder))
    for instruction, kwargs, good, bad in WITH_PUNKT:
        wanted = label(instruction, **kwargs)
        IFEVAL.check_label(wanted)
        assert (IFEVAL([], good, wanted).score, IFEVAL([], bad, wanted).score) == (1.0, 0.0)
    one, two = "It was warm.", "It rained. We stayed in."
    for quantifier, good, bad in (("at least", two, one), ("at most", two, f"{two} {one}")):
        old = {"func_name": "verify_sentence_constraint", "N": 2, "quantifier": quantifier}
        assert (IFEVAL([], good, old).score, IFEVAL([], bad, old).score) == (1.0, 0.0)
    capitals = {"func_name": "validate_frequency_capital_words", "N": 1, "quantifier": "at most"}
    assert (IFEVAL([], "GO now.", capitals).score, IFEVAL([], "GO NOW.", capitals).score) == (1.0, 0.0)


def test_the_score_is_the_share_followed():
    wanted = {
        "instruction_id": [
            "punctuation:no_comma",
            "startend:quotation",
            "detectable_format:title",
            "keywords:existence",
        ],
        "kwargs": [None, {}, {"language": None}, {"keywords": ["sea"]}],
    }
    result = IFEVAL([], '"by the sea"', wanted)
    assert (result.score, result.details) == (0.75, {"followed": [True, True, False, True]})
    assert IFEVAL([], "", wanted).score == 0.0
    assert IFEVAL([], "<think>by the sea</think>", wanted).score == 0.0


NEW = label("punctuation:no_comma")


@pytest.mark.parametrize(
    "written",
    [
        NEW,
        [NEW],
        json.dumps(NEW),
        str([NEW]),
        str([json.dumps(NEW)]),
        {"instruction_id_list": NEW["instruction_id"], "kwargs": NEW["kwargs"]},
        {"func_name": "validate_no_commas", "N": None, "quantifier": None},
        '{"func_name": "validate_no_commas", "N": null}',
    ],
)
def test_forms_of_labels(written):
    IFEVAL.check_label(written)
    assert (IFEVAL([], "none", written).score, IFEVAL([], "a, b", written).score) == (1.0, 0.0)


OLD = [
    ("verify_keywords", {"keyword_list": ["C++", "sea"]}, "c++ at sea", "c at sea"),
    ("verify_keyword_frequency", {"word": "sea", "N": 2}, "sea and Sea, seal", "sea sea sea"),
    ("validate_forbidden_words", {"forbidden_words": ["sea"]}, "land", "sea"),
    ("verify_letter_frequency", {"letter": "z", "N": 2}, "zz", "zzz"),
    ("validate_response_language", {"language": "fr"}, FRENCH, ENGLISH),
    ("verify_paragraph_count", {"N": 2}, "one\n* * *\ntwo", "one\n* * *\ntwo\n* * *\nthree"),
    ("validate_word_constraint", {"N": 10, "quantifier": "around"}, "w " * 11, "w " * 12),
    ("validate_word_constraint", {"N": 10, "quantifier": "at most"}, "w " * 10, "w " * 11),
    ("validate_word_constraint", {"N": 10, "quantifier": "at least"}, "w " * 10, "w " * 9),
    ("validate_paragraphs", {"N": 2, "first_word": "then", "i": 2}, "One.\n\nThen two.", "One.\n\nTwo."),
    ("verify_postscript", {"postscript_marker": "P.P.S"}, "Dear\nP.P.S hello", "Dear\nP.S. hello"),
    ("validate_placeholders", {"N": 1}, "[name]", "name"),
    ("verify_bullet_points", {"N": 1}, "- one", "one"),
    ("validate_title", {}, "<<title>>", "title"),
    ("validate_choice", {"options": ["yes (I do)", "no"]}, "Yes (I do).", "Perhaps"),
    ("validate_highlighted_sections", {"N": 1}, "*one*", "one"),
    ("validate_sections", {"N": 1, "section_splitter": "SECTION"}, "SECTION 1\na", "a"),
    ("validate_json_format", {}, "[1, 2]", "1, 2"),
    ("validate_repeat_prompt", {"original_prompt": "Name a fish."}, "Name a fish. Cod.", "Cod."),
    ("validate_two_responses", {}, "one ****** two", "one"),
    ("validate_uppercase", {}, ENGLISH.upper(), ENGLISH),
    ("validate_lowercase", {}, ENGLISH, ENGLISH.upper()),
    ("validate_end", {"end_phrase": "The end."}, "So. The end.", "So."),
    ("validate_quotation", {}, '"a"', "a"),
    ("validate_no_commas", {}, "a", "a, b"),
]


@pytest.mark.parametrize(("function", "arguments", "good", "bad"), OLD)
def test_old_labels(function, arguments, good, bad):
    wanted = {"func_name": function, "N": None, "words": None, **arguments}
    IFEVAL.check_label(wanted)
    assert (IFEVAL([], good, wanted).score, IFEVAL([], bad, wanted).score) == (1.0, 0.0)


def test_these_are_all_old_functions():
    with_punkt = {"verify_sentence_constraint", "validate_frequency_capital_words"}
    assert {case[0] for case in OLD} | with_punkt == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("no commas, please", "neither JSON nor a Python literal"),
        ("[" * 20_000, "neither JSON nor a Python literal"),
        ("7", "is a int"),
        ("x" * 60_000, "60000 characters"),
        ({"instruction_id": "punctuation:no_comma", "kwargs": [{}]}, "has not the lists"),
        ({"instruction_id": [], "kwargs": []}, "has 0 instructions"),
        ({"instruction_id": ["punctuation:no_comma"], "kwargs": []}, "1 instructions and 0 kwargs"),
        ({"instruction_id": ["punctuation:no_comma"], "kwargs": ["x"]}, "has a str among its kwargs"),
        (label("punctuation:no_commas"), "names the instruction 'punctuation:no_commas'"),
        (label("length_constraints:number_words", num_words=3), r"which takes \['num_words', 'relation'\]"),
        (label("punctuation:no_comma", number=3), "has the kwargs"),
        (label("length_constraints:number_words", num_words=3, relation="exactly"), "unusable kwargs.*relation"),
        (label("length_constraints:number_words", num_words="3", relation="at least"), "unusable kwargs"),
        (label("keywords:letter_frequency", letter="!!", let_frequency=1, let_relation="at least"), "has letter '!!'"),
        (label("detectable_content:number_placeholders", num_placeholders=-1), "has num_placeholders -1"),
        (label("keywords:existence", keywords=["sea", "c**"]), "multiple repeat"),
        ({"func_name": "nothing"}, "names the function 'nothing'"),
        ({"func_name": "verify_keyword_frequency", "word": "sea", "N": None}, "lacks N"),
        ({"func_name": "validate_word_constraint", "N": 3, "quantifier": "about"}, "quantifier 'about'"),
        ({"func_name": "verify_keywords", "keyword_list": 3}, "unusable arguments"),
    ],
)
def test_unusable_labels(written, words):
    with pytest.raises(BadLabel, match=words):
        IFEVAL.check_label(written)


def test_an_unusable_label_is_missing_not_zero():
    for written in (label("no:such"), {"instruction_id": [], "kwargs": []}, "nonsense"):
        result = IFEVAL([], "some response", written)
        assert (result.score, result.status) == (None, "unusable_label")


def test_hostile_responses():
    assert IFEVAL([], "[" * 100_000, label("detectable_format:json_format")).score == 0.0
    # The library takes text in no language for text in any.
    assert IFEVAL([], "1 2 3 !!!", label("language:response_language", language="fr")).score == 0.0


def test_the_same_response_gets_the_same_score():
    close = label("language:response_language", language="no")
    scores = {IFEVAL([], "Det er en fin dag i dag", close).score for _ in range(10)}
    assert len(scores) == 1


def test_requirements_keep_no_nulls():
    given = requirements_of({"instruction_id": ["a"], "kwargs": [{"x": None, "y": 0}]})
    assert given == [{"name": "a", "checks": [["a", {"y": 0}]]}]
