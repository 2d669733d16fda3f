"""The subcommands of ``flip`` that are no evaluation, one a file."""
