"""Weighing: actions are taken in the order of their predicted damage, and sized by what was measured."""

from collections.abc import Sequence
from dataclasses import replace

from ..analysis.diagnosis import ACTION_OF
from ._action import Action
from ._predict_damage import PredictedDamage

BY_PREDICTION = ("kernel", "separable", "resolution")
"""Kinds of which predicted damage ranked what retraining left of a ResNet-20, and measured damage did not; of other
networks, it ranked them together as well as that (docs/evidence.md)."""


def weigh(actions: Sequence[Action], predicted: PredictedDamage) -> list[Action]:
    """Give the measured damages of each kind of action to its actions in the order of what is predicted of them.

    The action of which least is predicted weighs as much as the least damage that was measured of its kind, the next as
    much as the second least, and so on. So weights are nats, as are those of kinds that are not predicted, in the order
    of the prediction. What is claimed of each action stays what was measured of it.

    Parameters
    ----------
    actions : sequence of Action
        All that may be chosen.
    predicted : PredictedDamage
        What `predict_damage` found. Actions of which it knows nothing keep their own damage.

    Returns
    -------
    list of Action
        The same actions, in the same order.
    """
    known = {
        (ACTION_OF[row["intervention"]], row["layer"], row["what"], row["how"]): float(row["predicted"])
        for row in predicted.frame.to_dict("records")
        if row["intervention"] in ACTION_OF
    }
    out = list(actions)
    for kind in BY_PREDICTION:
        found = {
            number: known[key]
            for number, each in enumerate(actions)
            if (key := (each.kind, each.module, each.what, each.how)) in known and each.kind == kind
        }
        measured = sorted(actions[number].damage.mean for number in found)
        ranked = sorted(found, key=found.__getitem__)
        for number, mean in zip(ranked, measured, strict=True):
            out[number] = replace(actions[number], by_prediction=mean)
    return out
