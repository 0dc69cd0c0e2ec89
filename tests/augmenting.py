"""One small picture, one recipe a switch, and the recipes of ``conf/transform``."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from pipnet.config import config_dir
from pipnet.data.transforms import Augment

SIZE = 64
PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), (0, 0), 1.5)
PHOTOMETRIC = {
    "brightness": Augment(brightness=0.4),
    "contrast": Augment(contrast=0.4),
    "saturation": Augment(saturation=0.8),
    "hue": Augment(hue=30),
    "gamma": Augment(gamma=0.5),
    "gray": Augment(gray_p=1),
    "blur": Augment(blur_p=1, blur=0.03),
    "shrink": Augment(shrink_p=1, shrink=4),
    "noise": Augment(noise_p=1, noise=20),
    "occlude": Augment(occlude_p=1, occlude=0.5),
    "occlude_textured": Augment(occlude_p=1, occlude=0.5, occlude_textured=1),
}


def recipe(name):
    """A recipe of conf/transform with the recipes that it builds on."""
    content = yaml.safe_load((Path(config_dir()) / "transform" / f"{name}.yaml").read_text())
    below = [recipe(base) for base in content.pop("defaults", [])]
    return {key: value for part in [*below, content] for key, value in part.items()}


def rng(seed):
    return np.random.default_rng(seed)


def painted(augment, seed, picture=PICTURE):
    return augment.photometric(picture.copy(), rng(seed))
