"""One row: what an ablation says of one change."""

import fmcluster as fm


def one_row(model, probe, intervention, layer: str, what: str) -> dict:
    frame = fm.ablate(model, probe, layers=[layer], interventions=[intervention]).frame
    (row,) = frame[frame["what"] == what].to_dict("records")
    return row
