"""Mixing the images of a batch: mixup and CutMix by torchvision."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchMix(nn.Module):
    """Mixes each image of a batch, and its label, with another: by mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), or one at random.

    Args:
        num_classes: number of classes K.
        mixup: both parameters of mixup's beta distribution; 0 for no mixup.
        cutmix: those of CutMix; 0 for no CutMix.

    Raises:
        ValueError: one is negative.
    """

    def __init__(self, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        super().__init__()
        from torchvision.transforms import v2

        if mixup < 0 or cutmix < 0:
            raise ValueError(f"mixup {mixup} and cutmix {cutmix} are not possible; accepted: 0 or more")
        self.num_classes = num_classes
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self.kinds = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            images: (B, 3, H, W) uint8.
            labels: (B,) int64 in 0..K-1.

        Returns:
            (B, 3, H, W) float images in 0..1, and (B, K) shares of the classes; without any mixing, the images as they are.
        """
        if not self.kinds:
            return images, F.one_hot(labels, self.num_classes).float()
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
        mixed: tuple[Tensor, Tensor] = kind(images.float() / 255, labels)
        return mixed
