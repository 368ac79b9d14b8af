"""The "did you mean" of an error message."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the choice nearest to `word`, else an empty string."""
    import difflib

    by_folded = {choice.casefold().replace("_", "-"): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold().replace("_", "-"), by_folded, n=1)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""
