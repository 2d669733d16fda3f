"""Near-duplicates among prompts: MinHash signatures and an index of bands, by rensa.

The similarity of two prompts is the Jaccard index of their sets of `shingle`-byte pieces,
estimated from `PERMUTATIONS` hashes (standard deviation at most 0.05). With `BANDS` bands a pair of
similarity 0.8 is compared with a probability of 0.998, one of 0.7 with 0.92.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PERMUTATIONS = 120
BANDS = 20
# Fixed: which prompts are alike must not depend on the seed of the sample.
HASH_SEED = 1


def shingles(text: str, size: int) -> list[bytes]:
    """All pieces of `size` bytes of a normalised text; a shorter text is one piece."""
    data = text.encode("utf-8", "surrogatepass")
    return [data[start : start + size] for start in range(max(1, len(data) - size + 1))]


def signatures(texts: Sequence[str], size: int) -> list[Any]:
    """A MinHash signature for each normalised text; they can go from one process to another."""
    import rensa

    library: Any = rensa  # has no types
    return library.RMinHash.from_token_sets([shingles(text, size) for text in texts], PERMUTATIONS, HASH_SEED)


class KeptPrompts:
    """The signatures of prompts that were kept, and which of them a further one resembles.

    Memory grows with the prompts kept, not with those asked about.
    """

    def __init__(self, threshold: float) -> None:
        import rensa

        library: Any = rensa  # has no types
        self.threshold = threshold
        self._index = library.RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._kept: list[Any] = []

    def keep_if_new(self, signature: Any) -> bool:
        """Keeps a prompt unless a kept one is at least as similar as the threshold; says whether it was kept."""
        if any(self._kept[place].jaccard(signature) >= self.threshold for place in self._index.query(signature)):
            return False
        self._index.insert(len(self._kept), signature)
        self._kept.append(signature)
        return True
