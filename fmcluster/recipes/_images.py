"""Images: a folder with train/ and val/, and the transforms of PyTorch's transfer-learning tutorial."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..store import is_url, whole_url

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_OF_SYSTEMS = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)


@dataclass(frozen=True)
class ImageData:
    """The images of one folder.

    Items are (image, label): float32 of shape (3, 224, 224), normalized with ImageNet's mean and standard
    deviation, and an int.

    Attributes
    ----------
    train : Dataset
        ``train/``, randomly cropped and flipped.
    val : Dataset
        ``val/``, center-cropped.
    probe : Dataset
        The images whose feature maps are recorded: `val`, or a `torch.utils.data.Subset` of it.
    classes : tuple of str
        Class names; a label is a position in it.
    skipped : tuple of str
        The paths of files that cannot be read as images, which were left out because that was asked for.
    """

    train: Dataset[tuple[Tensor, int]]
    val: Dataset[tuple[Tensor, int]]
    probe: Dataset[tuple[Tensor, int]]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def load_image_folder(
    data: str | Path, *, probe_size: int | None = None, random_state: int = 0, skip_broken: bool = False
) -> ImageData:
    """Open ``DATA/train/<class>/*`` and ``DATA/val/<class>/*``.

    Files that are no images by their extension are passed over.

    Parameters
    ----------
    data : str or Path
        The folder that holds ``train/`` and ``val/``.
    probe_size : int, optional
        Draw so many validation images as the probe, as evenly over the classes as they allow. All of them by
        default.
    random_state : int
        Of that draw.
    skip_broken : bool
        Read every file once, and leave out those that cannot be read; otherwise such a file is an error, by its name,
        when its item is asked for.

    Returns
    -------
    ImageData
        Files are read when items are asked for.

    Raises
    ------
    FileNotFoundError
        No such folder, no ``train/`` or ``val/`` in it, no class folders, or a class folder without images.
    NotADirectoryError
        It is a file.
    ValueError
        ``train/`` and ``val/`` hold different classes, or `probe_size` is not within 1 and the number of
        validation images.
    """
    folder = Path(data).expanduser()
    if is_url(data):
        raise FileNotFoundError(
            f"{whole_url(data)!r} is a URL; images are read from a folder of this machine that holds train/ and val/: "
            f"download them into one first"
        )
    if not folder.is_dir():
        if folder.exists():
            raise NotADirectoryError(f"{str(data)!r} is a file: expected a folder that holds train/ and val/")
        raise FileNotFoundError(f"no folder at {str(data)!r}: expected one that holds train/ and val/")
    absent = [f"{part}/" for part in ("train", "val") if not (folder / part).is_dir()]
    if absent:
        raise FileNotFoundError(
            f"{str(data)!r} holds no {' and no '.join(absent)}: expected DATA/train/CLASS/*.jpg and "
            f"DATA/val/CLASS/*.jpg{_hint(folder)}"
        )
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    augmenting = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    train = _open_part(folder / "train", transforms.Compose([*augmenting, transforms.ToTensor(), normalize]))
    val = _open_part(folder / "val", _evaluation_transform())
    skipped = [path for part in (train, val) for path in _leave_out_broken(part)] if skip_broken else []
    if train.classes != val.classes:
        difference = _difference(train.classes, val.classes)
        raise ValueError(
            f"train/ and val/ in {str(data)!r} hold different classes ({difference}): "
            "give every class a folder of the same name in both"
        )
    probe: Dataset[tuple[Tensor, int]] = val
    if probe_size is not None:
        probe = Subset(val, draw_evenly(val.targets, size=probe_size, random_state=random_state))
    return ImageData(train=train, val=val, probe=probe, classes=tuple(train.classes), skipped=tuple(skipped))


class RecordedImages(Dataset[tuple[Tensor, int]]):
    """The images of a run's probe, read again from where they were, as the tutorial shows them to evaluate.

    Parameters
    ----------
    samples : DataFrame
        `Run.samples`.

    Raises
    ------
    FileNotFoundError
        Where the run knows no paths, or there is no file at one of them.
    """

    def __init__(self, samples: pd.DataFrame) -> None:
        if "path" not in samples:
            raise FileNotFoundError(
                "the run does not know where its images are, as its data set had no paths; name the folder with --data"
            )
        self.samples: list[tuple[str, int]] = list(zip(samples["path"], samples["label"].astype(int), strict=True))
        if missing := [path for path, _ in self.samples if not Path(path).is_file()]:
            raise FileNotFoundError(
                f"{len(missing)} of the run's {len(samples)} images are not where they were ({missing[0]}); name the "
                f"folder with --data"
            )
        self._transform = _evaluation_transform()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        path, label = self.samples[number]
        image: Tensor = self._transform(_load_image(path))
        return image, label


def _evaluation_transform() -> transforms.Compose:
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize])


def draw_evenly(targets: list[int], *, size: int, random_state: int) -> list[int]:
    """Draw items at random, as evenly over their labels as the labels allow.

    Parameters
    ----------
    targets : list of int
        The label of every item.
    size : int
        How many items to draw.
    random_state : int
        Of the draw.

    Returns
    -------
    list of int
        Positions in `targets`, ascending.

    Raises
    ------
    ValueError
        `size` is not within 1 and the number of items.
    """
    if not 1 <= size <= len(targets):
        raise ValueError(f"probe_size is {size}: expected 1 to {len(targets)}, the number of validation images")
    labels = np.asarray(targets)
    shuffled = np.random.default_rng(random_state).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turn[members] = np.arange(len(members))
    # Every class gives its first image before any gives its second, and so on until `size` are drawn.
    drawn = shuffled[np.argsort(turn[shuffled], kind="stable")][:size]
    return sorted(int(index) for index in drawn)


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or is what a system or network storage puts beside images."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


class _VisibleFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """An `ImageFolder` in which hidden folders, such as ``.ipynb_checkpoints``, are no classes."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the names of the classes, and their labels."""
        names = sorted(e.name for e in Path(directory).iterdir() if e.is_dir() and not _is_hidden(e.name))
        return names, {name: label for label, name in enumerate(names)}


def _each_once(part: ImageFolder) -> ImageFolder:
    """Leave out hidden files, and the files of a folder that links give a second time, of the same class."""
    shown: dict[str, bool] = {}  # by folder, whether its files are images of the class
    real: set[tuple[int, Path]] = set()
    samples = []
    for path, label in part.samples:
        folder, _, name = path.rpartition(os.sep)
        if folder not in shown:
            of_class = (label, Path(folder).resolve())
            hidden = any(_is_hidden(each) for each in Path(folder).relative_to(part.root).parts)
            shown[folder] = of_class not in real and not hidden
            real.add(of_class)
        if shown[folder] and not _is_hidden(name):
            samples.append((path, label))
    part.samples = part.imgs = samples
    part.targets = [label for _, label in samples]
    return part


def _load_image(path: str) -> Image.Image:
    """Open an image as RGB; of one with 16 bits a channel, the upper eight are taken, and numbers to 1 are shares.

    Raises
    ------
    ValueError
        Where the file is no image, is damaged, or holds numbers that are neither 0 to 1 nor 0 to 255.
    """
    try:
        if not Path(path).is_file():
            raise ValueError("it is not a file" if Path(path).exists() else "it is a link that leads nowhere")
        with Image.open(path) as image:
            image.load()
            if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):  # as Pillow's warning advises
                return image.convert("RGBA").convert("RGB")
            if image.mode.startswith("I"):
                pixels = np.asarray(image).astype(np.int64)
                wide = image.mode.startswith("I;16") or pixels.max(initial=0) > 255
                return Image.fromarray((pixels // 257 if wide else pixels).clip(0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "F":
                return _image_of_numbers(np.asarray(image)).convert("RGB")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        mend = "give permission to read" if isinstance(error, PermissionError) else "repair"
        raise ValueError(
            f"{path} cannot be read as an image ({error}); {mend} or remove the file, or pass "
            f"skip_broken=True (--skip-broken)"
        ) from error


def _image_of_numbers(pixels: npt.NDArray[np.float32]) -> Image.Image:
    low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))  # NaN where any is
    if not 0 <= low <= high <= 255:
        raise ValueError(f"its pixels are numbers from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
    return Image.fromarray(np.round(pixels * 255 if high <= 1 else pixels).astype(np.uint8))


def _open_part(part: Path, transform: transforms.Compose) -> ImageFolder:
    classes = sorted(entry for entry in part.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    if not classes:
        raise FileNotFoundError(f"no class folders in {part}: put the images of each class in a folder of its own")
    for entry in classes:
        _check_readable(entry)
    empty = [entry.name for entry in classes if not _has_image(entry)]
    if empty:
        raise FileNotFoundError(
            f"no images in {part} for {', '.join(empty)}: add some ({', '.join(IMG_EXTENSIONS)}) or remove the folder"
        )
    return _each_once(_VisibleFolder(str(part), transform=transform, loader=_load_image))


def _leave_out_broken(part: ImageFolder) -> list[str]:
    """Leave out the files that cannot be read, and return their paths.

    Raises
    ------
    ValueError
        Where a class has no other.
    """
    broken = []
    for path, _ in part.samples:
        try:
            _load_image(path)
        except ValueError:
            broken.append(path)
    unreadable = set(broken)
    part.samples = part.imgs = [(path, label) for path, label in part.samples if path not in unreadable]
    part.targets = [label for _, label in part.samples]
    if empty := sorted(set(part.class_to_idx.values()) - set(part.targets)):
        raise ValueError(
            f"no image of class {part.classes[empty[0]]!r} in {part.root} can be read; the first file that cannot is "
            f"{broken[0]}"
        )
    return broken


def _check_readable(folder: Path) -> None:
    """Raise where a folder in it cannot be listed, whose images would be passed over without a word."""

    def refuse(error: OSError) -> None:
        why = error.strerror or str(error)
        raise OSError(error.errno, f"{why}: the images in it cannot be listed; mend that, or remove it", error.filename)

    for _, folders, _ in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]


def _has_image(folder: Path) -> bool:
    entries = (entry for entry in folder.rglob("*") if entry.suffix.lower() in IMG_EXTENSIONS)
    return any(
        entry.is_file() and not any(_is_hidden(part) for part in entry.relative_to(folder).parts) for entry in entries
    )


def _hint(folder: Path) -> str:
    if folder.name in ("train", "val"):
        return "; give the folder above it"
    inner = [
        entry.name for entry in sorted(folder.iterdir()) if (entry / "train").is_dir() and (entry / "val").is_dir()
    ]
    return f"; {str(folder / inner[0])!r} has both" if inner else ""


def _difference(train: list[str], val: list[str]) -> str:
    only = {"train/": sorted(set(train) - set(val)), "val/": sorted(set(val) - set(train))}
    return "; ".join(f"only in {part}: {', '.join(names)}" for part, names in only.items() if names)
