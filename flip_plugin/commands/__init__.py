"""The commands of ``flip``: a module each, with `DESCRIPTION`, `add_arguments` and `run`.

`flip_plugin.cli` lists them.
"""
