"""A copy of the scripts, with a `uv` and a `.venv/bin/python` that only write down their arguments."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE_UV = r"""#!/usr/bin/env bash
echo "$* [UV_FIND_LINKS=${UV_FIND_LINKS:-}]" >>"$UV_LOG"
if [[ "$1" == venv ]]; then
    rm -rf .venv && mkdir -p .venv/bin
    [[ "$*" =~ --python\ ([0-9.]+) ]] && mkdir -p ".venv/lib/python${BASH_REMATCH[1]}"
    printf '#!/usr/bin/env bash\nprintf "%%s\\n" "pid=$$" "$@"\n' >.venv/bin/python
    chmod +x .venv/bin/python
fi
sleep "${UV_SLEEP:-0}"
if [[ -n "${UV_FAIL:-}" && "$*" =~ $UV_FAIL ]]; then echo "uv says no" >&2; exit 1; fi
"""


class Tree:
    """A copy of the scripts in a folder of its own, with a machine around it that has a fake uv."""

    def __init__(self, base: Path):
        self.root = base / "a tree"  # a space, since home folders have them
        self.bin = base / "bin"
        self.log = base / "uv.log"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("scripts", "requirements"):
            shutil.copytree(ROOT / name, self.root / name)
        for folder in (".", "open-instruct", "datasets_prep"):
            (self.root / folder).mkdir(exist_ok=True)
            shutil.copy(ROOT / folder / "pyproject.toml", self.root / folder)
        tools = "bash dirname cat cksum tr grep mkdir flock uname rm touch sleep chmod env"
        for tool in tools.split():
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.program("uv", FAKE_UV)
        self.env = {"PATH": str(self.bin), "HOME": str(base), "UV_LOG": str(self.log)}

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.bin / "bash"), str(self.root / script), *arguments],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = self.run(script, *arguments, **env)
        assert done.returncode == 0, done.stderr
        return done

    def calls(self) -> list[str]:
        """What uv was asked for since the last look."""
        found = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return found

    def evaluations(self, script: str, *arguments: str, **env: str) -> list[list[str]]:
        """The arguments of each `flip eval` of a recipe."""
        lines = self.ok(script, *arguments, **env).stdout.splitlines()
        calls = "\n".join(lines).split("\n-m\nflip_plugin.cli\neval\n")[1:]
        return [re.split(r"\npid=", call)[0].splitlines() for call in calls]

    def flags(self, script: str, *arguments: str, **env: str) -> list[str]:
        """The trainer's arguments, as a recipe passes them."""
        lines = self.ok(script, *arguments, **env).stdout.splitlines()
        return lines[lines.index("open_instruct.grpo_fast") + 1 :]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)
