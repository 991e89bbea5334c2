"""Glossary of the page: what the terms mean, for the report and the explorer."""

import re
from html import escape
from importlib import resources

from markupsafe import Markup

GLOSSARY: dict[str, str] = {
    "snapshot": "The activations of all recorded layers on the same images at one moment of training.",
    "probe": "The images that the network is shown at every snapshot, always the same and in the same order.",
    "feature map": "The output of one channel of a layer for one image: a number at each position.",
    "embedding": "A position in the plane for every row, such that similar rows lie close together. Two dimensions "
    "always lose something: neighbor recall and motion say how much.",
    "neighbor recall": "The share of a point's nearest points by its full vector that are among its nearest in the "
    "embedding, too, within each snapshot. 1: all are kept.",
    "motion": "Rank correlation, within each step, between how far points travel in the embedding and how far their "
    "vectors really moved. 1: who travels further changed more. 0: it says nothing.",
    "noise floor": "What the measure gives where nothing changed: two random halves of the same data, compared with "
    "each other. What is not over it is no finding.",
    "null": "What chance gives: the same measure with labels or channels permuted at random.",
    "CKA": "Centered kernel alignment: how similar two sets of activations on the same images are, up to rotation and "
    "scale. 1: the same; 0: unrelated. Debiased, so that many features do not raise it.",
    "drift": "How far a layer's activations are from those at the first snapshot, relative to their own size.",
    "churn": "The share of rows that are in another cluster than before.",
    "effective rank": "How many directions a layer's activations fill: exp of the entropy of their variances.",
    "dead": "A channel whose output is constant over all images of the probe.",
    "duplicate": "A channel whose outputs correlate with another's: the 95 % interval over images lies over 0.95.",
    "duplicate group": "Channels of which each is a duplicate of another in the group.",
    "revived channel": "A channel that is alive at this snapshot, and was dead at the one before.",
    "permuted channel": "A channel that gives what another one gave at the snapshot before, and hardly what it gave "
    "itself; neither has a duplicate that could be meant.",
    "noise channel": "A channel that hardly correlates with itself from each snapshot to the next.",
    "channels that hold the energy": "How many of the largest eigenvalues of the channels' correlations hold most (by "
    "default 90 %) of their sum: after an activation, a width to aim at.",
    "neighbor accuracy": "The share of images whose nearest others, by a layer's activations, have the same class.",
    "damage": "What a change of the network does to the loss on the probe, in nats, with its 95 % interval.",
    "top images": "The images that drive a channel most, with a ring where it is most active.",
    "most typical": "The member of a cluster that is nearest to the cluster's mean.",
    "matched": "Channels of two runs, paired one to one so that the sum of their correlations is greatest.",
}

_WORDS = {word: name for name in GLOSSARY for word in (name, name[0].upper() + name[1:], f"{name}s")} | {
    "Neighbor recall": "neighbor recall",
    "top images": "top images",
}
_TERM = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(_WORDS, key=len, reverse=True))) + r")(?![\w-])")
_WITH_MARKS = re.compile(rf"(\(?){_TERM.pattern}([),.:;]*)")
_TAG = re.compile(r"(<[^>]*>)")
_BARE = (
    "button",
    "a",
    "script",
    "style",
    "option",
    "select",
    "summary",
    "label",
    "h1",
    "h2",
    "h3",
    "h4",
    "code",
    "output",
    "samp",
)
_BLOCK = ("section", "figure", "table", "header")


def mark_terms(page: str) -> Markup:
    """Make the first mention of each term, in each block of a piece of HTML, a button that says what it means.

    Parameters
    ----------
    page : str
        HTML. What stands in buttons, links, headings and the like stays as it is.

    Returns
    -------
    Markup
        The same texts, in the same order.

    Examples
    --------
    >>> "What the measure gives" in mark_terms("<p>not over its noise floor</p>")
    True
    >>> mark_terms("<h2>Drift</h2>")
    Markup('<h2>Drift</h2>')
    """
    bare: list[str] = []
    seen: set[str] = set()

    def explained(found: re.Match[str]) -> str:
        name = _WORDS[found[2]]
        if name in seen:
            return found[0]
        seen.add(name)
        button = (
            f'<button type="button" class="term" data-term="{escape(name)}" data-meaning="{escape(GLOSSARY[name])}" '
            f'title="{escape(GLOSSARY[name])}">{found[2]}</button>'
        )
        # a line may end on either side of a button, and a bracket would stand alone there
        return f'<span class="joined">{found[1]}{button}{found[3]}</span>' if found[1] or found[3] else button

    parts = []
    for part in _TAG.split(page):
        if part.startswith("<"):
            tag = part.strip("</>").split(maxsplit=1)[0] if part.strip("</>") else ""
            if tag in _BLOCK and not part.startswith("</"):
                seen.clear()
            if tag in _BARE:
                if part.startswith("</"):
                    bare.pop()
                else:
                    bare.append(tag)
            parts.append(part)
        else:
            parts.append(part if bare else _WITH_MARKS.sub(explained, part))
    return Markup("".join(parts))


def term_source(suffix: str) -> str:
    """Return the style sheet (``"css"``) or the script (``"js"``) with which a page shows what terms mean."""
    folder = resources.files("fmcluster.report").joinpath("templates")
    return folder.joinpath(f"terms.{suffix}").read_text(encoding="utf-8")


def split_at_terms(text: str) -> list[tuple[str, str | None]]:
    """Cut a text into parts, each with the name of the term that it is the first mention of, or None.

    Examples
    --------
    >>> split_at_terms("CKA of a layer")
    [('CKA', 'CKA'), (' of a layer', None)]
    """
    parts: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    at = 0
    for found in _TERM.finditer(text):
        name = _WORDS[found[1]]
        if name in seen:
            continue
        seen.add(name)
        parts += [(text[at : found.start()], None), (found[1], name)]
        at = found.end()
    return [part for part in [*parts, (text[at:], None)] if part[0]]
