"""The plan on the page: its actions and its price are those of the plan, and nothing stands there without one."""

from pathlib import Path

import pytest
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.decide import Action, MeasuredDamage, Plan
from fmcluster.decide._costs import Costs
from fmcluster.decide._price import Seconds
from tests.report.small_report import HOSTILE_LAYER, Parsed, Written

PLAN = Plan(
    actions=(
        Action(
            "freeze",
            ("conv1", "relu"),
            "from the start on",
            MeasuredDamage(0.001, -0.002, 0.004),
            Costs(backward=30, kept=40),
        ),
        Action(
            "kernel",
            (HOSTILE_LAYER,),
            "3 x 3 to 1 x 1",
            MeasuredDamage(0.012, 0.004, 0.02, 0.3),
            Costs(forward=20, backward=10, parameters=5),
            by_prediction=0.25,
        ),
    ),
    of="compute",
    budget=0.7,
    tolerance=0.05,
    before=Costs(forward=100, backward=200, kept=80, parameters=50),
    after=Costs(forward=80, backward=160, kept=40, parameters=45),
    built=True,
    together=MeasuredDamage(0.031, 0.011, 0.051),
    n_samples=12,
    seconds=(Seconds(1.69, 1.6, 2.5), Seconds(0.0125, 0.01, 0.02)),
    batch=4,
    caveat="Its evidence is <weak>.",
)


def page_of(written: Written, path: Path, **options: object) -> Parsed:
    fm.write_report(
        written.run, path, layers=["conv1"], n_clusters=3, reducer=PCA(2, random_state=0), diagnosis=False, **options
    )
    return Parsed(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_plan_stands_on_the_page_with_its_evidence_and_its_price(written: Written, tmp_path: Path) -> None:
    text = page_of(written, tmp_path / "report.html", plan=PLAN).text
    for said in (
        "The plan Its evidence is <weak>. What to do for at most 70% of compute left and at most 0.05 nats of damage",
        "Built on half of 12 images and shown the others, all of it costs 0.031 (0.011 to 0.051) nats; one by one, the "
        "actions add up to 0.012.",
        "freeze conv1, relu from the start on 0.001 (-0.002 to 0.004) – – 0.0% 15.0% 50.0% 0.0%",
        f"kernel {HOSTILE_LAYER} 3 x 3 to 1 x 1 0.012 (0.004 to 0.020) 0.250 0.300 20.0% 5.0% 0.0% 10.0%",
        "80.0% of the multiply-adds of the forward pass, 80.0% of the multiply-adds of the backward pass, 50.0% of the "
        "bytes kept for the backward pass, 90.0% of the parameters.",
        "A step of 4 images took 1.69 s before and 12.5 ms after, on the machine that made the plan.",
    ):
        assert said in text
    assert "The price of these is not known" not in text
    assert "What may be frozen or built smaller, and what it costs, the plan says." in text


@pytest.mark.slow
def test_without_a_plan_nothing_is_said_of_one(written: Written, tmp_path: Path) -> None:
    assert "The plan" not in written.parsed.texts
    empty = Plan((), "memory", 0.9, None, Costs(1, 1, 1, 1), Costs(1, 1, 1, 1))
    text = page_of(written, tmp_path / "report.html", plan=empty).text
    assert (
        "Nothing to do: no measured change that does clearly less than chance helps to keep at most 90% of memory"
        in text
    )
    with pytest.raises(TypeError, match="plan is a str; expected a Plan, made by plan"):
        page_of(written, tmp_path / "other.html", plan="plan.yaml")
