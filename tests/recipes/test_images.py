import errno
import itertools
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from fmcluster.recipes import RecordedImages, load_image_folder
from fmcluster.recipes._images import _load_image, draw_evenly


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; ants as .jpeg, bees as .png; 3 images of each in train/, 2 in val/."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for name, suffix in (("ants", ".jpeg"), ("bees", ".png")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}{suffix}")
    return tmp_path


def test_images_are_found_with_their_classes(folder: Path) -> None:
    data = load_image_folder(folder)
    assert data.classes == ("ants", "bees")
    assert (len(data.train), len(data.val)) == (6, 4)
    assert data.probe is data.val


def test_a_stray_gif_is_not_an_image(folder: Path) -> None:
    Image.new("P", (8, 8)).save(folder / "train" / "ants" / "imageNotFound.gif")
    (folder / "val" / "bees" / "Thumbs.db").write_bytes(b"")
    data = load_image_folder(folder)
    assert (len(data.train), len(data.val)) == (6, 4)


def test_validation_images_are_the_same_each_time_and_training_images_are_not(folder: Path) -> None:
    data = load_image_folder(folder)
    (image, label), (again, _) = data.val[0], data.val[0]
    assert image.shape == (3, 224, 224)
    assert image.dtype == torch.float32
    assert label == 0
    assert torch.equal(image, again)
    assert not torch.equal(data.train[0][0], data.train[0][0])


def test_the_probe_is_drawn_evenly_and_repeatably(folder: Path) -> None:
    probe = load_image_folder(folder, probe_size=2, random_state=3).probe
    again = load_image_folder(folder, probe_size=2, random_state=3).probe
    assert isinstance(probe, Subset)
    assert isinstance(again, Subset)
    assert probe.indices == again.indices
    assert [probe[0][1], probe[1][1]] == [0, 1]


def test_an_even_draw_takes_from_large_classes_what_small_ones_lack() -> None:
    targets = [0] * 10 + [1] * 2 + [2] * 10
    drawn = draw_evenly(targets, size=12, random_state=0)
    assert drawn == sorted(set(drawn))
    assert np.bincount([targets[index] for index in drawn]).tolist() == [5, 2, 5]
    assert draw_evenly(targets, size=12, random_state=1) != drawn


@pytest.mark.parametrize("size", [0, -1, 5])
def test_impossible_probe_sizes_are_refused(size: int, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"probe_size is {size}: expected 1 to 4"):
        load_image_folder(folder, probe_size=size)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at '.*absent'"):
        load_image_folder(tmp_path / "absent")


def test_a_file_in_the_place_of_a_folder_is_named(folder: Path) -> None:
    image = next(folder.rglob("*.png"))
    with pytest.raises(NotADirectoryError, match=r"\.png' is a file: expected a folder that holds train/ and val/"):
        load_image_folder(image)


def test_a_url_is_said_as_it_was_written() -> None:
    with pytest.raises(FileNotFoundError, match=r"^'https://example.org/data' is a URL"):
        load_image_folder(Path("https://example.org/data"))


def test_a_missing_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    with pytest.raises(FileNotFoundError, match=r"holds no val/: expected DATA/train/CLASS"):
        load_image_folder(folder)


def test_the_folder_above_or_below_is_pointed_out(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give the folder above it"):
        load_image_folder(folder / "train")
    inner = folder / "outer" / "hymenoptera_data"
    inner.mkdir(parents=True)
    shutil.move(folder / "train", inner / "train")
    shutil.move(folder / "val", inner / "val")
    with pytest.raises(FileNotFoundError, match="hymenoptera_data' has both"):
        load_image_folder(folder / "outer")


def test_a_class_without_images_is_named(folder: Path) -> None:
    for image in (folder / "val" / "bees").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"no images in .*val for bees: add some \(\.jpg"):
        load_image_folder(folder)


def test_a_part_without_class_folders_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no class folders in .*train"):
        load_image_folder(folder)


def test_different_classes_in_the_two_parts_are_named(folder: Path) -> None:
    (folder / "val" / "bees").rename(folder / "val" / "wasps")
    with pytest.raises(ValueError, match=r"only in train/: bees; only in val/: wasps.*same name in both"):
        load_image_folder(folder)


def test_the_tutorial_images_are_all_there() -> None:
    root = os.environ.get("FMCLUSTER_DATA")
    if root is None:
        pytest.skip("FMCLUSTER_DATA is not set")
    data = load_image_folder(Path(root) / "hymenoptera_data")
    assert (len(data.train), len(data.val)) == (244, 153)
    assert data.classes == ("ants", "bees")


def test_files_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path):
    for part, name, number in itertools.product(("train", "val"), ("ants", "bees"), range(3)):
        file = tmp_path / part / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(file)
    broken = [tmp_path / "train" / "ants" / "1.png", tmp_path / "val" / "bees" / "0.png"]
    broken[0].write_bytes(b"no picture")
    broken[1].write_bytes(broken[1].read_bytes()[:40])
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image.*--skip-broken"):
        load_image_folder(tmp_path).train[1]
    found = load_image_folder(tmp_path, skip_broken=True)
    assert found.skipped == tuple(map(str, broken))
    assert (len(found.train), len(found.val)) == (5, 5)
    assert [label for _, label in found.train] == [0, 0, 1, 1, 1]
    assert found.val.targets == [0, 0, 0, 1, 1]
    for number in range(3):
        (tmp_path / "val" / "bees" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no image of class 'bees' in .*val can be read; the first file .*0\.png"):
        load_image_folder(tmp_path, skip_broken=True)


def test_recorded_images_are_the_probe_again(folder: Path) -> None:
    probe = load_image_folder(folder, probe_size=3).probe
    assert isinstance(probe, Subset)
    paths = [probe.dataset.samples[index] for index in probe.indices]
    samples = pd.DataFrame(paths, columns=["path", "label"])
    again = RecordedImages(samples)
    assert len(again) == 3
    for (image, label), (expected, same) in zip([again[n] for n in range(3)], probe, strict=True):
        assert torch.equal(image, expected)
        assert label == same
    Path(paths[1][0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the run's 3 images are not where they were .*--data"):
        RecordedImages(samples)
    with pytest.raises(FileNotFoundError, match="does not know where its images are"):
        RecordedImages(samples[["label"]])


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), "F"),
        (np.linspace(0, 255, 64, dtype=np.float32), "F"),
        (np.linspace(0, 65535, 64).astype(np.uint16), "I;16"),
        (np.linspace(0, 255, 64).astype(np.int32), "I"),
    ],
)
def test_images_of_wide_pixels_are_as_bright_as_they_were(pixels: np.ndarray, mode: str, tmp_path: Path) -> None:
    Image.fromarray(pixels.reshape(8, 8)).save(tmp_path / "0.tiff")
    with Image.open(tmp_path / "0.tiff") as stored:
        assert stored.mode == mode
    found = np.asarray(_load_image(str(tmp_path / "0.tiff"))).astype(float)
    assert found.shape == (8, 8, 3)
    np.testing.assert_allclose(found[..., 1].ravel(), np.linspace(0, 255, 64), atol=1)


@pytest.mark.parametrize("wrong", [-0.1, 300.0, np.nan])
def test_numbers_that_are_no_brightness_are_refused_with_the_file(wrong: float, tmp_path: Path) -> None:
    pixels = np.full((8, 8), 0.5, np.float32)
    pixels[3, 4] = wrong
    Image.fromarray(pixels).save(tmp_path / "0.tiff")
    with pytest.raises(ValueError, match=r"0\.tiff cannot be read .* from .* to .*; expected 0 to 1, or 0 to 255"):
        _load_image(str(tmp_path / "0.tiff"))


def test_a_link_to_a_folder_above_gives_no_image_twice(folder: Path) -> None:
    (folder / "val" / "ants" / "loop").symlink_to(folder / "val" / "ants", target_is_directory=True)
    (folder / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "elsewhere" / "7.png")
    (folder / "val" / "ants" / "more").symlink_to(folder / "elsewhere", target_is_directory=True)
    names = [Path(path).name for path, label in load_image_folder(folder).val.samples if label == 0]
    assert names == ["0.jpeg", "1.jpeg", "7.png"]


def test_folders_of_systems_are_no_classes_and_urls_no_folders(folder: Path) -> None:
    for name in ("$RECYCLE.BIN", "lost+found", "System Volume Information", "#recycle", "@Recycle", ".Trash-1000"):
        (folder / "train" / name).mkdir()
        (folder / "val" / name).mkdir()
    assert len(load_image_folder(folder).classes) == 2
    for url in ("s3://bucket/images", Path("https://host/images"), "hf://datasets/ants"):
        with pytest.raises(FileNotFoundError, match=r"is a URL.*download them"):
            load_image_folder(url)


def test_a_palette_with_transparency_warns_of_nothing(folder: Path) -> None:
    picture = Image.new("P", (9, 9), 3)
    picture.putpalette([10, 20, 30] * 256)
    picture.save(folder / "val" / "ants" / "palette.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [load_image_folder(folder).val.loader(path) for path, _ in load_image_folder(folder).val.samples]
    assert (10, 20, 30) in {image.getpixel((0, 0)) for image in found}


def test_hidden_files_inside_a_class_are_no_images(folder: Path) -> None:
    for name in (".ipynb_checkpoints/0-checkpoint.png", "._0.png", "@eaDir/0.png", "../__MACOSX/0.png"):
        (folder / "val" / "bees" / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "val" / "bees" / "0.png", folder / "val" / "bees" / name)
    data = load_image_folder(folder)
    assert (len(data.val), len(data.classes)) == (4, 2)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_or_too_large_a_picture_is_named(folder: Path) -> None:
    os.mkfifo(folder / "val" / "ants" / "pipe.png")
    (folder / "val" / "bees" / "gone.png").symlink_to(folder / "nowhere")
    data = load_image_folder(folder, skip_broken=True)
    assert [Path(path).name for path in data.skipped] == ["pipe.png", "gone.png"]
    Image.new("1", (20_000, 9_000)).save(folder / "val" / "ants" / "huge.png")
    with pytest.raises(ValueError, match=r"huge\.png cannot be read as an image .*exceeds limit"):
        _load_image(str(folder / "val" / "ants" / "huge.png"))


def test_a_folder_that_may_not_be_listed_is_named_and_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images would be missing without a word; root may list every folder, so that the system is asked less."""
    inner = next(entry for entry in (folder / "train").iterdir() if entry.is_dir()) / "more"
    inner.mkdir()
    listed = os.scandir

    def refuse(path: Any = ".") -> Any:
        if os.fspath(path) == str(inner):
            raise PermissionError(errno.EACCES, "Permission denied", str(inner))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="Permission denied: the images in it cannot be listed") as caught:
        load_image_folder(folder)
    assert caught.value.filename == str(inner)
