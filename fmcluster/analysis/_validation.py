"""What a verb was handed, where it is not what it works on."""


def require(value: object, kind: type, *, verb: str, made_by: str) -> None:
    """Raise `TypeError` where `value` is of another kind, and say what makes the right one."""
    if not isinstance(value, kind):
        raise TypeError(f"{verb} received a {type(value).__name__}; expected {kind.__name__}, made by {made_by}")
