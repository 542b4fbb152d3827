"""Small texts that several rooms say alike."""

import difflib

__all__ = ["did_you_mean", "number"]


def did_you_mean(word, known):
    """What to add to a message about an unknown word."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


def number(x):
    """A bound as a reader writes it: ``1e-9``, ``0.05``, ``2000``."""
    return f"{x:.12g}".replace("e-0", "e-").replace("e+0", "e+")
