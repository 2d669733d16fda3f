"""Similarities by name: ROUGE-L, embeddings (a real model, loaded as a user's would be), entry points."""

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flip_plugin.text import embedding
from flip_plugin.text.embedding import EmbeddingSimilarity
from flip_plugin.text.similarity import Checked, get_similarity, rouge_l, unicode_f1

JUDGE = str(Path(__file__).parents[3] / "datasets_prep/tiny_world/models/judge")
ONE, OTHER = "Write a haiku about the sea in winter", "Count the apples"


# --- by name ---


def test_the_named_ones():
    assert get_similarity("f1")("x y", "x y") == get_similarity("rouge_l")("x y", "x y") == 1.0
    with pytest.raises(ValueError, match="'bleu'; known: f1, unicode_f1, rouge_l, embedding:MODEL"):
        get_similarity("bleu")


def test_neither_import_is_paid_before_it_is_used():
    code = "import sys, flip_plugin; print({'rapidfuzz', 'torch', 'transformers'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


# --- ROUGE-L ---


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("police kill the gunman", "police killed the gunman", 3 / 4),  # Lin 2004, section 3.1: S2 and S1
        ("the gunman kill police", "police killed the gunman", 2 / 4),  # S3: the order counts
        ("a b c d", "a c", 2 * 1.0 * 0.5 / 1.5),  # precision 2/4, recall 2/2
        ("sea sea sea", "sea", 2 * 1 / 4),
        ("Don't STOP_now!", "don t stop now", 1.0),
        ("“Écris” un poème", "ecris un poeme", 1.0),
        ("写一首关于大海的诗", "写一首诗", 2 * 4 / 13),
        ("हिन्दी में कविता लिखो", "हिन्दी में कहानी लिखो", 3 / 4),  # vowel signs do not cut words
        ("", "", 0.0),
        ("x", "", 0.0),
        ("!?", "!?", 0.0),
    ],
)
def test_rouge_l(prediction, reference, value):
    assert rouge_l(prediction, reference) == pytest.approx(value)


def test_words_of_an_indic_script_stay_whole():
    assert unicode_f1("की", "का") == 0.0
    assert unicode_f1("हिन्दी में कविता", "हिन्दी में कहानी") == pytest.approx(2 / 3)


# --- embeddings ---


@pytest.fixture(scope="module")
def similarity():
    return EmbeddingSimilarity(JUDGE)


def test_cosine(similarity):
    assert similarity(ONE, ONE) == pytest.approx(1.0, abs=1e-5)
    value = similarity(ONE, OTHER)
    assert 0 <= value < 0.9
    assert similarity(OTHER, ONE) == pytest.approx(value, abs=1e-5)
    assert value < similarity(ONE, "Write a haiku about the sea in spring")
    assert similarity(ONE, "") == similarity(" \n", " \n") == 0.0


def test_the_mean_is_over_a_texts_own_tokens(similarity):
    """The definition, computed for one text without padding, beside a padded batch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(JUDGE)
    states = AutoModel.from_pretrained(JUDGE, dtype=torch.float32)(
        **tokenizer(OTHER, return_tensors="pt")
    ).last_hidden_state[0]
    mean = states.mean(dim=0).detach()
    batch = similarity.embed([OTHER, ONE * 20, ""])
    assert torch.allclose(batch[0], mean / mean.norm(), atol=1e-5)
    assert batch.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)


def test_longer_texts_than_the_model_reads_are_cut(similarity):
    assert 0 <= similarity("sea " * 20_000, ONE) <= 1


def test_loaded_once_for_all_threads_and_pickled_as_a_name(similarity, monkeypatch):
    loads = []

    class Counted(embedding._Encoder):
        def __init__(self, model):
            loads.append(model)
            super().__init__(model)

    monkeypatch.setattr(embedding, "_encoder", embedding.cache(Counted))
    copy = pickle.loads(pickle.dumps(get_similarity(f"embedding:{JUDGE}")))
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(copy, [ONE] * 16, [OTHER] * 16))
    assert loads == [JUDGE]
    assert values == pytest.approx([values[0]] * 16)
    assert copy.slow and not hasattr(get_similarity("f1"), "slow")
    assert len(pickle.dumps(copy)) < 1_000


def test_the_model_from_the_environment(monkeypatch):
    monkeypatch.delenv("FLIP_EMBEDDING_MODEL", raising=False)
    for name in ("embedding", "embedding:"):
        with pytest.raises(ValueError, match="set FLIP_EMBEDDING_MODEL, or name a model"):
            get_similarity(name)
    monkeypatch.setenv("FLIP_EMBEDDING_MODEL", JUDGE)
    assert get_similarity("embedding")(ONE, ONE) == pytest.approx(1.0, abs=1e-5)


def test_no_folder_and_no_model_in_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder \./no/such"):
        get_similarity("embedding:./no/such")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        get_similarity(f"embedding:{tmp_path}")


def test_a_broken_model_gives_no_reward(tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(JUDGE)
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(JUDGE).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'embedding:.*' returned nan; it must return a number from 0 to 1"):
        get_similarity(f"embedding:{tmp_path}")(ONE, OTHER)


def test_weights_that_are_no_safetensors_are_not_read(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(JUDGE) / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    broken = get_similarity(f"embedding:{tmp_path}")
    with pytest.raises(ValueError, match=r"cannot load .*\*\.safetensors\. transformers says: .*safetensors"):
        broken(ONE, OTHER)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # how Python marks a module that cannot be imported
    with pytest.raises(ImportError, match=r"needs torch: pip install torch transformers"):
        get_similarity(f"embedding:{JUDGE}")


# --- entry points, of distributions that are really found on sys.path ---

MODULE = """
def same(prediction, reference): return float(prediction == reference)
def wild(prediction, reference): return {"big": 1.5, "less": -0.1, "nan": float("nan"), "none": None}[prediction]
same.slow = True
text = "no function"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two distributions: toy-metrics with sound and broken similarities, toy-twin with a second `twice`."""
    (tmp_path / "toy_metrics_module.py").write_text(MODULE)
    names = {"same": "same", "wild": "wild", "text": "text", "gone": "gone", "twice": "same"}
    lines = [f"{name} = toy_metrics_module:{attribute}" for name, attribute in names.items()]
    lines.append("lost = toy_no_module:x")
    for name, content in (("toy-metrics", lines), ("toy-twin", ["twice = toy_metrics_module:wild"])):
        info = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("[flip_plugin.similarities]\n" + "\n".join(content) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("toy_metrics_module", None)


def test_an_entry_point(installed):
    same = get_similarity("same")
    assert (same("x", "x"), same("x", "y")) == (1.0, 0.0)
    assert same.slow and pickle.loads(pickle.dumps(same))("x", "x") == 1.0  # ty: ignore[missing-attribute]
    with pytest.raises(ValueError, match=r"known: f1, .*gone, lost, same, text, twice, wild"):
        get_similarity("bleu")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gone", "cannot be imported: .*has no attribute 'gone'"),
        ("lost", "cannot be imported: No module named 'toy_no_module'"),
        ("text", "is str, not a function"),
    ],
)
def test_a_broken_entry_point_names_its_distribution(installed, name, why):
    with pytest.raises(ValueError, match=rf"entry point '{name}' = .* of package toy-metrics 1\.2 {why}"):
        get_similarity(name)


def test_two_entry_points_of_one_name(installed):
    with pytest.raises(ValueError, match=r"ambiguous.*toy-(metrics|twin) 1\.2.*toy-(metrics|twin) 1\.2"):
        get_similarity("twice")


@pytest.mark.parametrize("kind", ["big", "less", "nan", "none"])
def test_what_is_no_share_never_becomes_a_reward(installed, kind):
    with pytest.raises(ValueError, match=r"'wild' = .* of package toy-metrics 1\.2 .* must return a number"):
        get_similarity("wild")(kind, "x")


def test_numbers_that_are_no_floats_are_accepted():
    import numpy

    value = Checked(lambda prediction, reference: numpy.float32(0.5), "mine")("x", "y")  # ty: ignore[invalid-argument-type]
    assert value == 0.5 and type(value) is float
