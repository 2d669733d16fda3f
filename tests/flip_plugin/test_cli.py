"""The command `flip`."""

import pytest

from flip_plugin.cli import main


@pytest.mark.parametrize("command", ["score", "rescore", "inspect", "serve"])
def test_help_explains_each_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"  flip {command} " in capsys.readouterr().out  # an example to copy
