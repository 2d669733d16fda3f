"""The names that a row may hold, with and without the trainer."""

from importlib.metadata import EntryPoint

import pytest

from flip_plugin import plugins
from flip_plugin.plugins import JUDGE_GROUP, VERIFIER_GROUP
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.verifier_names import BUILT_IN, dataset_of, known_verifiers


@pytest.fixture
def offer(monkeypatch):
    """Install exactly these entry points."""

    def install(*points):
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])

    return install


def test_data_sets_of_judge_types():
    assert [dataset_of(name) for name in ("flip", " Quality", "general-tone", "tone")] == [
        *("general-flip", "general-quality", "general-tone", "general-tone")
    ]
    with pytest.raises(DatasetError, match="--judge_type is empty"):
        dataset_of(" ")


def test_packages_that_need_the_trainer_are_known_without_it(offer, monkeypatch):
    def load(point):
        raise ModuleNotFoundError("No module named 'open_instruct'", name="open_instruct")

    monkeypatch.setattr(EntryPoint, "load", load)
    offer(EntryPoint("Tone", "a_package:SPEC", JUDGE_GROUP), EntryPoint("mine", "a_package:Mine", VERIFIER_GROUP))
    assert set(known_verifiers()) == {*BUILT_IN, "general-tone"}


def test_a_package_that_cannot_be_imported_is_named(offer):
    offer(EntryPoint("tone", "no_such_package:SPEC", JUDGE_GROUP))
    with pytest.raises(DatasetError, match=r"entry point 'tone' = 'no_such_package:SPEC'.*--verifiers"):
        known_verifiers()


def test_several_packages_of_one_name(offer):
    offer(*[EntryPoint("twice", f"package_{number}:f", "any.group") for number in (1, 2)])
    assert plugins.names("any.group") == ["twice"] and plugins.find("any.group", "once") is None
    with pytest.raises(plugins.PluginError, match=r"'twice' is ambiguous.*package_1:f.*package_2:f"):
        plugins.find("any.group", "twice")
