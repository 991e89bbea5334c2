"""Every command at runs that lie, that are damaged, or that hold what is seldom: an answer or one sentence."""


import pytest

from fmcluster.cli._pictures import OF_THE_RUN, Picture

fm = pytest.importorskip("fmcluster")

FEW = ["--layer", "conv", "--clusters", "2"]
COMMANDS: dict[str, list[str]] = {
    "info": ["info", "RUN"],
    "info --json": ["info", "RUN", "--json"],
    "verify": ["verify", "RUN"],
    "analyze": ["analyze", "RUN", *FEW, "--components", "3", "-o", "OUT/tables"],
    "diagnose": ["diagnose", "RUN", "-o", "OUT/tables"],
    "compare": ["compare", "RUN", "OTHER", "-o", "OUT/both.png"],
    "compare, the other way": ["compare", "OTHER", "RUN", "-o", "OUT/both.html"],
    "report": ["report", "RUN", "--clusters", "2", "-o", "OUT/page.html"],
    "export tensorboard": ["export", "RUN", "tensorboard", *FEW, "--no-diagnosis", "-o", "OUT/logs"],
    "export projector": ["export", "RUN", "projector", *FEW, "-o", "OUT/logs"],
    "explore": ["explore", "RUN", "--port", "0", "--no-browser"],
    "plan": ["plan", "RUN", "--weights", "OTHER", "-o", "OUT/plan.yaml"],
    "copy": ["copy", "RUN", "s3://nowhere"],
} | {
    f"plot {each}": ["plot", "RUN", each, *([] if each in OF_THE_RUN else FEW), "-o", "OUT/picture.png"]
    for each in Picture
}
