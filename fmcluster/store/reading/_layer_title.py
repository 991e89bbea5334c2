"""Layer title: what a layer is called in a sentence."""


def layer_title(name: str) -> str:
    """Return a layer's name, after the word where it would be taken for a number.

    Examples
    --------
    >>> layer_title("layer4.0"), layer_title("0.conv")
    ('layer4.0', 'layer 0.conv')
    """
    return f"layer {name}" if name[:1].isdigit() else name
