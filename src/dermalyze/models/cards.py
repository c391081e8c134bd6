"""The rows of the documents' model tables in figures. Nothing heavy is imported here, so that the list is there at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """A backbone in figures, without a head.

    Attributes:
        name: for `model.backbone`.
        parameters: count.
        multiply_adds: of one image at `size`: multiplications with addition, in convolutions and matrix products.
        width: features of an embedding.
        size: (height, width) that it was made for, px.
        stages: parts, stem included.
        licence: of the weights that `pretrained: true` takes; "unknown" where timm does not say, None without such weights.
        cam: it has a map to read a class activation from.
        rollout: it is a transformer with a class token from the first block on.
    """

    name: str
    parameters: int
    multiply_adds: int
    width: int
    size: tuple[int, int]
    stages: int
    licence: str | None
    cam: bool
    rollout: bool

    @property
    def family(self) -> str | None:
        """Its key in `FAMILIES`, or None."""
        name = self.name.partition(".")[0]
        return next((family for family, cards in FAMILIES.items() if any(card.name == name for card in cards)), None)

    def can(self) -> tuple[str, ...]:
        """What works with it: CAM, rollout, ONNX, int8; the last two as far as its family was tried."""
        family = self.family
        found = {"CAM": self.cam, "rollout": self.rollout, "ONNX": family in EXPORTED, "int8": family in QUANTISED}
        return tuple(name for name, works in found.items() if works)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "size": list(self.size), "family": self.family, "can": list(self.can())}


FAMILIES: dict[str, tuple[Card, ...]] = {
    "ResNet": (
        Card("resnet18", 11_176_512, 1_813_561_344, 512, (224, 224), 5, "apache-2.0", True, False),
        Card("resnet34", 21_284_672, 3_663_249_408, 512, (224, 224), 5, "apache-2.0", True, False),
        Card("resnet50", 23_508_032, 4_087_136_256, 2048, (224, 224), 5, "apache-2.0", True, False),
        Card("resnet101", 42_500_160, 7_799_357_440, 2048, (224, 224), 5, "apache-2.0", True, False),
        Card("resnet152", 58_143_808, 11_511_578_624, 2048, (224, 224), 5, "apache-2.0", True, False),
    ),
    "SE-ResNet": (
        Card("seresnet18", 11_266_624, 1_813_649_408, 512, (224, 224), 5, None, True, False),
        Card("seresnet34", 21_447_416, 3_663_408_128, 512, (224, 224), 5, None, True, False),
        Card("seresnet50", 26_039_024, 4_089_651_200, 2048, (224, 224), 5, "apache-2.0", True, False),
        Card("seresnet101", 47_277_872, 7_804_100_608, 2048, (224, 224), 5, None, True, False),
        Card("seresnet152", 64_772_848, 11_518_156_800, 2048, (224, 224), 5, None, True, False),
    ),
    "EfficientNet": (
        Card("efficientnet_b0", 4_007_548, 384_534_752, 1280, (224, 224), 8, "apache-2.0", True, False),
        Card("efficientnet_b1", 6_513_184, 685_522_832, 1280, (240, 240), 8, "apache-2.0", True, False),
        Card("efficientnet_b2", 7_700_994, 858_445_760, 1408, (256, 256), 8, "apache-2.0", True, False),
        Card("efficientnet_b3", 10_696_232, 1_587_662_096, 1536, (288, 288), 8, "apache-2.0", True, False),
        Card("efficientnet_b4", 17_548_616, 3_061_895_008, 1792, (320, 320), 8, "apache-2.0", True, False),
        Card("efficientnet_b5", 28_340_784, 9_402_326_080, 2048, (448, 448), 8, "apache-2.0", True, False),
        Card("tf_efficientnet_b6", 40_735_704, 19_065_289_536, 2304, (528, 528), 8, "apache-2.0", True, False),
        Card("tf_efficientnet_b7", 63_786_960, 37_743_324_192, 2560, (600, 600), 8, "apache-2.0", True, False),
    ),
    "EfficientNetV2": (
        Card("tf_efficientnetv2_s", 20_177_488, 5_306_281_248, 1280, (300, 300), 7, "apache-2.0", True, False),
        Card("tf_efficientnetv2_m", 52_858_356, 15_735_495_680, 1280, (384, 384), 8, "apache-2.0", True, False),
        Card("tf_efficientnetv2_l", 117_234_272, 35_898_138_624, 1280, (384, 384), 8, "apache-2.0", True, False),
    ),
    "DenseNet": (
        Card("densenet121", 6_953_856, 2_833_137_664, 1024, (224, 224), 5, "apache-2.0", True, False),
        Card("densenet169", 12_484_480, 3_358_179_328, 1664, (224, 224), 5, "apache-2.0", True, False),
        Card("densenet201", 18_092_928, 4_289_445_888, 1920, (224, 224), 5, "apache-2.0", True, False),
        Card("densenet264", 30_648_704, 5_748_965_376, 2688, (224, 224), 5, None, True, False),
    ),
    "MobileNet": (
        Card("mobilenetv2_035", 396_128, 58_005_808, 1280, (224, 224), 8, None, True, False),
        Card("mobilenetv2_100", 2_223_872, 299_494_272, 1280, (224, 224), 8, "apache-2.0", True, False),
        Card("mobilenetv3_small_100", 1_517_856, 55_486_400, 1024, (224, 224), 8, "apache-2.0", True, False),
        Card("mobilenetv3_large_100", 4_202_032, 215_309_760, 1280, (224, 224), 9, "apache-2.0", True, False),
    ),
    "ViT": (
        Card("vit_tiny_patch16_224", 5_524_416, 1_253_491_200, 192, (224, 224), 13, "apache-2.0", True, True),
        Card("vit_small_patch16_224", 21_665_664, 4_598_498_304, 384, (224, 224), 13, "apache-2.0", True, True),
        Card("vit_base_patch16_224", 85_798_656, 17_563_060_224, 768, (224, 224), 13, "apache-2.0", True, True),
        Card("vit_large_patch16_224", 303_301_632, 61_553_688_576, 1024, (224, 224), 25, "apache-2.0", True, True),
        Card("vit_huge_patch14_224", 630_764_800, 167_293_829_120, 1280, (224, 224), 33, "apache-2.0", True, True),
    ),
    "ConViT": (
        Card("convit_tiny", 5_517_512, 1_252_168_320, 192, (224, 224), 13, "apache-2.0", True, False),
        Card("convit_small", 27_344_322, 5_746_131_360, 432, (224, 224), 13, "apache-2.0", True, False),
        Card("convit_base", 85_771_040, 17_504_684_544, 768, (224, 224), 13, "apache-2.0", True, False),
    ),
    "CvT": (
        Card("cvt_13", 19_612_480, 4_565_705_216, 384, (224, 224), 4, None, True, False),
        Card("cvt_21", 31_237_696, 7_177_601_024, 384, (224, 224), 4, None, True, False),
        Card("cvt_w24", 276_171_392, 60_916_289_536, 1024, (224, 224), 4, None, True, False),
    ),
    "LeViT": (
        Card("levit_128s", 7_005_522, 303_892_832, 384, (224, 224), 4, "apache-2.0", True, False),
        Card("levit_192", 10_175_533, 656_254_080, 384, (224, 224), 4, "apache-2.0", True, False),
        Card("levit_256", 17_865_828, 1_126_233_344, 512, (224, 224), 4, "apache-2.0", True, False),
        Card("levit_384", 37_587_764, 2_350_250_880, 768, (224, 224), 4, "apache-2.0", True, False),
    ),
    "ConvNeXt": (
        Card("convnext_tiny", 27_820_128, 4_454_763_264, 768, (224, 224), 5, "apache-2.0", True, False),
        Card("convnext_small", 49_454_688, 8_682_944_256, 768, (224, 224), 5, "apache-2.0", True, False),
        Card("convnext_base", 87_566_464, 15_353_705_472, 1024, (224, 224), 5, "apache-2.0", True, False),
        Card("convnext_large", 196_230_336, 34_359_897_600, 1536, (224, 224), 5, "apache-2.0", True, False),
    ),
    "Swin": (
        Card("swin_tiny_patch4_window7_224", 27_519_354, 4_489_798_656, 768, (224, 224), 5, "mit", True, False),
        Card("swin_small_patch4_window7_224", 48_837_258, 8_740_107_264, 768, (224, 224), 5, "mit", True, False),
        Card("swin_base_patch4_window7_224", 86_743_224, 15_429_922_816, 1024, (224, 224), 5, "mit", True, False),
        Card("swin_large_patch4_window7_224", 194_995_476, 34_474_223_616, 1536, (224, 224), 5, "mit", True, False),
    ),
    "CLIP, SigLIP": (
        Card("vit_base_patch16_clip_224", 85_799_424, 17_563_060_224, 768, (224, 224), 13, "apache-2.0", True, True),
        Card("vit_large_patch14_clip_224", 303_179_776, 81_011_982_336, 1024, (224, 224), 25, "apache-2.0", True, True),
        Card("vit_base_patch16_siglip_224", 92_884_224, 17_708_292_096, 768, (224, 224), 14, "apache-2.0", True, False),
    ),
    "DINO": (
        Card("vit_small_patch14_dinov2", 22_056_192, 46_696_739_328, 384, (518, 518), 13, "apache-2.0", True, True),
        Card("vit_base_patch14_dinov2", 86_579_712, 151_573_718_016, 768, (518, 518), 13, "apache-2.0", True, True),
        Card("vit_large_patch14_dinov2", 304_367_616, 506_803_826_688, 1024, (518, 518), 25, "apache-2.0", True, True),
        Card("vit_small_patch16_dinov3", 21_586_944, 6_245_286_912, 384, (256, 256), 13, "dinov3-license", True, True),
        Card("vit_base_patch16_dinov3", 85_641_216, 23_574_546_432, 768, (256, 256), 13, "dinov3-license", True, True),
        Card("vit_large_patch16_dinov3", 303_079_424, 82_368_970_752, 1024, (256, 256), 25, "dinov3-license", True, True),
    ),
    "own": (
        Card("custom_cnn", 52_999_296, 2_912_681_984, 128, (224, 224), 5, None, True, False),
        Card("custom_cnn_gap", 1_881_216, 2_861_563_904, 128, (224, 224), 5, None, True, False),
        Card("tiny_cnn", 137_112, 19_077_120, 96, (96, 96), 4, None, True, False),
    ),
}  # fmt: skip
"""By family. Counted by `catalog.measure`; a test counts again."""

EXPORTED = frozenset(FAMILIES)
"""Families whose smallest member gives the same probabilities as an ONNX graph; a slow test holds it."""
QUANTISED = frozenset({"ResNet", "ViT", "own", "DINO", "CLIP, SigLIP"})
"""Families whose graph takes static int8 quantisation (QDQ) and still answers: tried with the smallest member, random weights
and random images, its logits are nearer to those in fp32 than to zero; a slow test holds it. That says nothing of accuracy,
which hangs on weights and calibration images. CvT's are not; the other families were not tried."""
