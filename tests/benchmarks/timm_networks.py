"""Eighty networks of timm, of each family a small one, by their number of parameters."""

from __future__ import annotations

_NAMES = (
    "lcnet_035", "mobilenetv2_035", "starnet_s050", "mobilenetv3_small_050", "lcnet_050",
    "mobilenetv4_conv_small_035", "mnasnet_small", "tinynet_e", "semnasnet_050", "mobilevit_xxs",
    "tf_mobilenetv3_small_075", "tf_mobilenetv3_small_minimal_100", "dla46_c", "tinynet_d", "mobilevitv2_050",
    "edgenext_xx_small", "ghostnet_050", "ese_vovnet19b_slim_dw", "mobilenetv3_small_100", "efficientvit_b0",
    "efficientvit_m0", "mobilenetv2_100", "regnetx_002", "mobilenetv4_conv_small", "tf_mixnet_s", "mixnet_s",
    "cs3darknet_s", "regnety_002", "spnasnet_100", "inception_next_atto", "mobilenetv1_100", "efficientformerv2_s0",
    "fastvit_t8", "convnext_atto", "efficientnet_lite0", "tf_efficientnet_lite0", "convnextv2_atto", "rexnet_100",
    "fbnetc_100", "hgnetv2_b0", "hardcorenas_a", "efficientnet_b0", "tf_efficientnet_b0", "efficientnet_es",
    "mobileone_s0", "repvit_m0_9", "ghostnetv2_100", "resnet10t", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224", "tf_efficientnetv2_b0", "shvit_s1", "mobilenetv4_hybrid_medium_075",
    "regnetz_005", "gernet_s", "densenet121", "levit_128s", "repvgg_a0", "seresnext26ts", "resnest14d",
    "botnet26t_256", "hrnet_w18_small", "resnet18", "resnet18d", "legacy_seresnet18", "seresnet18",
    "poolformer_s12", "skresnet18", "tf_efficientnet_cc_b0_4e", "efficientnetv2_rw_t",
    "vit_wee_patch16_reg1_gap_256", "darknet17", "resnet26", "ecaresnet26t", "swin_tiny_patch4_window7_224",
    "selecsls42", "vgg11", "vgg11_bn", "efficientformer_l1",
)  # fmt: skip
_LARGER = {"ghostnetv2_100": 48, "efficientformer_l1": 224}

SIDES = {name: _LARGER.get(name, 32) for name in _NAMES}
"""The side of the smallest image that each takes, of 32 pixels and more."""
