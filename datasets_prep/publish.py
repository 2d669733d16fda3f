"""A finished folder to the Hugging Face hub, as a data set of its own."""

from __future__ import annotations

from pathlib import Path

from flip_plugin.rows.checks import DatasetError


def check_login(name: str) -> None:
    """Raise `DatasetError` where `name` could not be pushed to, before hours of work rather than after."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if name.count("/") > 1 or not name.strip("/"):
        raise DatasetError(f"--push_to_hub {name!r} is not a data set's id: NAME or OWNER/NAME")
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        raise DatasetError(
            f"--push_to_hub {name}: the hub knows no user here ({type(error).__name__}): log in with `hf auth login`, "
            "or leave the flag out and push the folder later: `hf upload --repo-type dataset NAME DIR`"
        ) from error


def push(folder: Path, name: str, data_file: str, *, public: bool) -> str:
    """Upload rows and card, all in one commit. Returns the address. A new data set is private unless `public`."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    repo = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True).repo_id
    files = {data_file: data_file, "card.json": "card.json", "README.md": "card.md"}
    operations = [
        CommitOperationAdd(path_in_repo=there, path_or_fileobj=folder / here) for there, here in files.items()
    ]
    api.create_commit(repo, operations, repo_type="dataset", commit_message=f"{data_file} and its card")
    return f"https://huggingface.co/datasets/{repo}"
