import numpy as np
import pytest

from fmcluster.plot import cluster_palette


@pytest.mark.parametrize("count", [1, 8, 10, 11, 30])
def test_colors_differ(count):
    palette = cluster_palette(count)
    assert list(palette) == [-1, *range(count)]
    assert len(set(palette.values())) == count + 1


# Machado, Oliveira, Fernandes (2009), severity 1: what linear RGB looks like without one kind of cones.
MISSING_CONES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, cones):
    """CIE L*a*b* (D65) of an sRGB color as it is seen."""
    coded = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(MISSING_CONES[cones]) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(np.array(TO_XYZ) @ seen / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", MISSING_CONES)
def test_eight_clusters_and_noise_are_told_apart_by_everyone(cones):
    seen = [lab(color, cones) for color in cluster_palette(8).values()]
    assert min(np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[:n]) > 13


def test_labels_and_count_agree():
    assert cluster_palette(np.array([3, 0, -1, 3])) == cluster_palette(4)
    assert cluster_palette([]) == cluster_palette(0)


def test_up_to_ten_a_label_keeps_its_color():
    assert all(cluster_palette(n)[1] == cluster_palette(10)[1] for n in range(2, 11))


@pytest.mark.parametrize("wrong", [-1, [-2, 0]])
def test_wrong_labels(wrong):
    with pytest.raises(ValueError, match="expected a count of 0 or more"):
        cluster_palette(wrong)
