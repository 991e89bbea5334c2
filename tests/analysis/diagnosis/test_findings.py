"""Findings: their measures by name, what they print, and thresholds that cannot be meant."""

from dataclasses import replace

import pandas as pd
import pytest

from fmcluster.analysis import Findings, Thresholds
from fmcluster.analysis.diagnosis import Advice


def findings_of(*advice: Advice) -> Findings:
    frame = pd.DataFrame({"layer": ["a", "b", "a"], "measure": ["dead", "dead", "drift"], "value": [1.0, 2.0, 3.0]})
    return Findings(frame, pd.DataFrame(), pd.DataFrame(), advice, Thresholds())


def test_a_measure_is_taken_by_its_name_and_layer():
    findings = findings_of()
    assert findings.rows("dead")["value"].tolist() == [1.0, 2.0]
    assert findings.rows("dead", layer="b")["value"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no measure 'alive'; expected one of dead, drift"):
        findings.rows("alive")


def test_what_is_printed_is_the_advice_a_line_each_or_that_there_is_none():
    advice = [Advice("a", "dead", text, pd.DataFrame()) for text in ("a: one of four", "a: another")]
    assert str(findings_of(*advice)) == "a: one of four\na: another"
    assert "nothing to say of single layers" in str(findings_of())
    lines = str(replace(findings_of(*advice), caveat="The network is right on few.")).splitlines()
    assert lines == ["The network is right on few.", "a: one of four", "a: another"]
