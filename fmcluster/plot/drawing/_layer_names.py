"""Layer names as pictures show them: whatever a module is called, beside a row or in a title there is little room."""

from ._class_names import one_line

LONGEST = 48


def layer_text(name: str) -> str:
    """Return a layer's name for a picture: one line; of a long one, both ends, by which layers differ.

    Examples
    --------
    >>> layer_text("layer4.0.conv1")
    'layer4.0.conv1'
    >>> layer_text("model.backbone.encoder.stages.3.blocks.11.attention.projection")
    'model.backbone.encoder.s…11.attention.projection'
    """
    text = one_line(name)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half].rstrip()}…{text[1 - half :].lstrip()}"
