import numpy as np
import pytest

from fmcluster.plot import cluster_palette


@pytest.mark.parametrize("count", [1, 8, 10, 11, 30])
def test_colors_differ(count):
    palette = cluster_palette(count)
    assert list(palette) == [-1, *range(count)]
    assert len(set(palette.values())) == count + 1


def test_labels_and_count_agree():
    assert cluster_palette(np.array([3, 0, -1, 3])) == cluster_palette(4)
    assert cluster_palette([]) == cluster_palette(0)


def test_up_to_ten_a_label_keeps_its_color():
    assert all(cluster_palette(n)[1] == cluster_palette(10)[1] for n in range(2, 11))


@pytest.mark.parametrize("wrong", [-1, [-2, 0]])
def test_wrong_labels(wrong):
    with pytest.raises(ValueError, match="expected a count of 0 or more"):
        cluster_palette(wrong)
