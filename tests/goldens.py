"""The papers' own code as numbers: from a golden's (name, args, state) to our block holding the same weights.

To add a block, add a row to ``PORTS``: how our constructor is called with the reference's arguments, and how the
reference's parameter names become ours.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from lightning_app.blocks._layers import ConvBNReLU
from lightning_app.blocks.a2net import DoubleAttention
from lightning_app.blocks.ann import AFNB, APNB
from lightning_app.blocks.apcnet import ACM
from lightning_app.blocks.carafe import CARAFEUpsample
from lightning_app.blocks.cbam import CBAM
from lightning_app.blocks.ccnet import CrissCrossAttention
from lightning_app.blocks.cgnl import CompactNonLocal
from lightning_app.blocks.danet import ChannelAttention, PositionAttention
from lightning_app.blocks.dgmn import DynamicMessagePassing
from lightning_app.blocks.eca import ECA
from lightning_app.blocks.efficient_attention import EfficientSelfAttention
from lightning_app.blocks.emanet import EMAU
from lightning_app.blocks.gcnet import GlobalContext
from lightning_app.blocks.glore import GlobalReasoning
from lightning_app.blocks.isanet import InterlacedSparseSelfAttention
from lightning_app.blocks.latentgnn import LatentGraph
from lightning_app.blocks.local_relation import SIMILARITIES, local_relation
from lightning_app.blocks.ocnet import ASPOC, BaseOC, PyramidOC
from lightning_app.blocks.ocrnet import ObjectContext
from lightning_app.blocks.polarized import PolarizedSelfAttention
from lightning_app.blocks.psanet import MODES, PointwiseSpatialAttention
from lightning_app.blocks.se import SE
from lightning_app.heads.apcnet import APCNet
from lightning_app.heads.ccnet import CCNet
from lightning_app.heads.danet import DANet

OFFICIAL = Path(__file__).parent / "goldens" / "official"


class Port(NamedTuple):
    """One row: ``build(args)`` gives our module, ``rename`` maps the reference's names, in order, by ``re.sub``.

    Two names that become one must hold the same tensor (a layer that the reference shares); a name that becomes ""
    is dropped.
    """

    build: Callable[[dict[str, Any]], nn.Module]
    rename: Mapping[str, str] = {}


POLARIZED = {
    "conv_q_right": "channel_query",
    "conv_v_right": "channel_value",
    "conv_q_left": "spatial_query",
    "conv_v_left": "spatial_value",
    "conv_up": "channel_up",
}
POLARIZED_PAPER = {
    "ch_wq": "channel_query",
    "ch_wv": "channel_value",
    "ch_wz": "channel_up.0",
    "ln": "channel_up.1",
    "sp_wq": "spatial_query",
    "sp_wv": "spatial_value",
}


DGMN = {
    **{rf"^gamma{i + 1}$": f"messages.{i}.gamma" for i in range(4)},
    **{rf"^(kernel_conv|cat){letter}\.": f"messages.{i}.filter." for i, letter in enumerate("abcd")},
    **{rf"^off_conv{letter}\.": f"messages.{i}.offset." for i, letter in enumerate("abcd")},
}
LATENTGNN = {
    r"down_channel(_v2l)?\.": "down.",
    r"down_channel_l2v\.": "down_back.",
    r"up_channel\.": "up.",
    r"LatentGNN_Kernel_": "kernels.",
    r"psi(_v2l)?\.": "psi_in.",
    r"psi_l2v\.": "psi_out.",
    r"GraphConvWeight\.": "graph_conv.",
    r"\.0\.weight$": ".conv.weight",
    r"(down|down_back|up|psi_in|psi_out|graph_conv)\.1\.": r"\1.bn.",
}


def dgmn(args: dict[str, Any]) -> nn.Module:
    """The reference's blocks, the slip in their last dilation included."""
    return DynamicMessagePassing(
        args["channels"],
        groups=args["group"],
        dilations=args["dilation"],
        deform=args["deform"] or "none",
        shuffle=args["shuffle"],
        released=True,
    )


def latentgnn(args: dict[str, Any]) -> nn.Module:
    return LatentGraph(
        args["in_channels"],
        nodes=args["latent_dims"],
        stride=args["channel_stride"],
        mode=args["mode"],
        graph_conv=args["graph_conv_flag"],
        residual=not args.get("without_residual", False),
    )


class LocalRelation(nn.Module):
    """The window operator, which has no weights, as a module."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        self.args = args

    def forward(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        unused = 0 * query.sum()  # of "key" similarity, whose query the official operator gives a gradient of zeros
        return unused + local_relation(
            query,
            key,
            value,
            position,
            stride=self.args["stride"],
            dilation=self.args["dilation"],
            scale=self.args["scale"],
            outside=self.args["no_define_value"],
            similarity=SIMILARITIES[self.args["sim_method"]],
        )


def hrnet_block(args: dict[str, Any]) -> nn.Module:
    """HRNet's unit with the sequential form between its convolutions, in the slot that timm keeps for anti-aliasing."""
    block = BasicBlock(args["inplanes"], args["planes"])
    block.aa = PolarizedSelfAttention(args["planes"], mode="sequential")
    return block


ACM_NAMES = {
    "pooled_redu_conv": "pooled",
    "input_redu_conv": "reduce",
    "gla": "affinity",
    "residual_conv": "residual",
    "fusion_conv": "fuse",
}
OBJECT_CONTEXT = {
    r"object_context_block\.f_pixel\.": "query.",
    r"object_context_block\.f_object\.": "key.",
    r"object_context_block\.f_down\.": "value.",
    r"object_context_block\.f_up\.": "out.",
    r"conv_bn_dropout\.": "fuse.",
    r"(query|key)\.0\.": r"\1.0.conv.",
    r"(query|key)\.1\.0\.": r"\1.0.bn.",
    r"(query|key)\.2\.": r"\1.1.conv.",
    r"(query|key)\.3\.0\.": r"\1.1.bn.",
    r"(value|out|fuse|reduce)\.0\.": r"\1.conv.",
    r"(value|out|fuse|reduce)\.1\.0\.": r"\1.bn.",
}


class EMAUAndBases(EMAU):
    """The unit with the bases it fitted as a second output."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        with torch.no_grad():  # as forward fits them
            _, bases = self.fit(x)
        return super().forward(x), bases


class APCNetContext(APCNet):
    """The head without its classifier, on one level."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(
            [args["in_channels"]],
            1,
            channels=args["channels"],
            scales=args["pool_scales"],
            fusion=args["fusion"],
        )
        del self.classifier

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.context([x])


class OCRBlock(nn.Module):
    """HRNet-OCR's whole head, whose outer convolutions have a bias."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        width, channels, classes = args["high_level_ch"], args["mid_channels"], args["num_classes"]
        self.reduce = ConvBNReLU(width, channels, 3, bias=True)
        self.coarse = nn.Sequential(ConvBNReLU(width, width, bias=True), nn.Conv2d(width, classes, 1))
        self.block = ObjectContext(channels, args["key_channels"], regions=0)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.coarse(x)
        context = self.block(self.reduce(x), coarse)
        return self.classifier(context), coarse, context


PROJECTIONS = {
    "f_(query|key|value)": r"attention.\1",
    r"(query|key)\.0\.": r"\1.0.conv.",
    r"(query|key)\.1\.(0\.)?": r"\1.0.bn.",
    r"(query|key)\.2\.": r"\1.1.conv.",
    r"(query|key)\.3\.(0\.)?": r"\1.1.bn.",
    r"\bW\.": "out.",
}  # openseg's self-attentions; OCNet.pytorch has one convolution per projection
ONE_PROJECTION = {"key": "query"}
FUSE = {r"^conv_bn(_dropout)?\.0\.": "fuse.conv.", r"^conv_bn(_dropout)?\.1\.(0\.)?": "fuse.bn."}
ASP = {
    r"^context\.0\.": "local.conv.",
    r"^context\.1\.(0\.)?": "local.bn.",
    r"^context\.2\.stages\.0\.": "pooling.",
    r"^context\.2\.conv_bn_dropout\.0\.0\.": "tail.0.",
    r"^context\.2\.conv_bn_dropout\.0\.": "tail.conv.",
    r"^context\.2\.conv_bn_dropout\.1\.": "tail.bn.",
    **{rf"^conv{i + 2}\.0\.": f"branches.{i}.conv." for i in range(4)},
    **{rf"^conv{i + 2}\.1\.(0\.)?": f"branches.{i}.bn." for i in range(4)},
}
ASYMMETRIC = {
    r"f_(query|key)\.0\.": r"\1.conv.",
    r"f_(query|key)\.1\.0\.": r"\1.bn.",
    "f_value": "value",
    r"\bW\.": "out.",
}
ISA = {
    **PROJECTIONS,
    r"long_range_sa\.attention\.": "far.",
    r"short_range_sa\.attention\.": "near.",
    r"long_range_sa\.out\.0\.": "far_out.conv.",
    r"long_range_sa\.out\.1\.0\.": "far_out.bn.",
    r"short_range_sa\.out\.0\.": "near_out.conv.",
    r"short_range_sa\.out\.1\.0\.": "near_out.bn.",
    r"^up_conv\.0\.": "widen.conv.",
    r"^up_conv\.1\.(0\.)?": "widen.bn.",
    **FUSE,
}
PSANET = {
    r"^(reduce|attention)\.": r"\1.0.",
    r"^(reduce|attention)_p\.": r"\1.1.",
    r"^(reduce\.\d)\.0\.": r"\1.conv.",
    r"^(reduce\.\d)\.1\.": r"\1.bn.",
    r"^(attention\.\d)\.0\.": r"\1.0.conv.",
    r"^(attention\.\d)\.1\.": r"\1.0.bn.",
    r"^(attention\.\d)\.3\.": r"\1.1.",
    r"^proj\.0\.": "proj.conv.",
    r"^proj\.1\.": "proj.bn.",
    "^": "block.",
}
RCCA = {
    r"(query|key|value)_conv": r"\1",
    r"^cca\.": "head.block.",
    r"^bottleneck\.3\.": "head.classifier.",
    **{
        rf"^{theirs}\.{i}\.": f"head.{ours}.{layer}."
        for theirs, ours in (("conva", "reduce"), ("convb", "project"), ("bottleneck", "fuse"))
        for i, layer in enumerate(("conv", "bn"))
    },
}
DANET = {
    r"(query|key|value)_conv": r"\1",
    r"^sa\.": "head.pam.1.",
    r"^sc\.": "head.cam.1.",
    **{
        rf"^conv{theirs}\.{i}\.": f"head.{ours}.{layer}."
        for theirs, ours in (("5a", "pam.0"), ("5c", "cam.0"), ("51", "pam.2"), ("52", "cam.2"))
        for i, layer in enumerate(("conv", "bn"))
    },
    r"^conv6\.1\.": "head.pam_classifier.",
    r"^conv7\.1\.": "head.cam_classifier.",
    r"^conv8\.1\.": "head.classifier.",
}


def isa_module(args: dict[str, Any]) -> nn.Module:
    """The module, which puts its input in front of the context and not behind."""
    block = InterlacedSparseSelfAttention(
        args["in_channels"],
        key_channels=args["key_channels"],
        value_channels=args["value_channels"],
        out_channels=args["out_channels"],
        cells=[tuple(factor) for factor in args["down_factors"]],
        value_bias=False,
    )
    own = args["in_channels"] if block.widen is None else len(block.stages) * args["out_channels"]
    block.fuse.register_forward_pre_hook(lambda _, inputs: inputs[0].roll(own, dims=1))
    return block


class BesideInput(nn.Module):
    """PSANet's module returns its input and its result side by side."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        self.block = PointwiseSpatialAttention(
            args["in_channels"],
            inner=args["mid_channels"],
            mode=MODES[args["psa_type"]],
            mask_size=(args["mask_h"], args["mask_w"]),
            compact=args["compact"],
            shrink_factor=args["shrink_factor"],
            softmax=args["psa_softmax"],
            normalization_factor=args["normalization_factor"],
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.block(x)], dim=1)


class RCCAHead(nn.Module):
    """The authors' head on one level: of two widths, with leaky activations."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        width, inner, out = args["in_channels"], args["in_channels"] // 4, args["out_channels"]
        self.head = CCNet([width], args["num_classes"], channels=inner)
        self.head.fuse = ConvBNReLU(width + inner, out, 3)
        self.head.classifier = nn.Conv2d(out, args["num_classes"], 1)
        for layer in (self.head.reduce, self.head.project, self.head.fuse):
            layer.slope = 0.01

    def forward(self, x: Tensor, recurrence: int) -> Tensor:
        self.head.block.recurrence = recurrence
        return self.head([x])


class DANetHead(nn.Module):
    """The authors' head on one level, whose width sets the others."""

    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        width = args["in_channels"] // 4
        self.head = DANet([args["in_channels"]], args["out_channels"], channels=width, key_channels=width // 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = self.head.outputs([x])
        return [outputs.logits, *(side.logits for side in outputs.auxiliary)]


def base_oc(args: dict[str, Any]) -> nn.Module:
    return BaseOC(
        args["in_channels"],
        out_channels=args["out_channels"],
        key_channels=args["key_channels"],
        value_channels=args["value_channels"],
        sizes=args["sizes"],
        openseg="bn_type" in args,
    )


def asp_oc(args: dict[str, Any]) -> nn.Module:
    return ASPOC(
        args["features"],
        branch_channels=args["out_features"],
        dilations=args["dilations"],
        openseg="bn_type" in args,
    )


PORTS: dict[str, Port] = {
    "ann_afnb": Port(
        lambda a: AFNB(
            a["low_in_channels"],
            a["high_in_channels"],
            out_channels=a["out_channels"],
            key_channels=a["key_channels"],
            value_channels=a["value_channels"],
            stages=len(a["sizes"]),
            scales=a.get("psp_size", (1, 3, 6, 8)),
            bias=True,
        ),
        {**ASYMMETRIC, **FUSE},
    ),
    "ann_apnb": Port(
        lambda a: APNB(
            a["in_channels"],
            out_channels=a["out_channels"],
            key_channels=a["key_channels"],
            value_channels=a["value_channels"],
            stages=len(a["sizes"]),
            scales=a.get("psp_size", (1, 3, 6, 8)),
            bias=True,
        ),
        {**ASYMMETRIC, **ONE_PROJECTION, **FUSE},
    ),
    "ccnet_cca": Port(lambda a: CrissCrossAttention(a["in_dim"], recurrence=1), {"_conv": ""}),
    "ccnet_rcca_head": Port(RCCAHead, RCCA),
    "danet_cam": Port(lambda a: ChannelAttention(a["in_dim"])),
    "danet_head": Port(DANetHead, DANET),
    "danet_pam": Port(lambda a: PositionAttention(a["in_dim"]), {"_conv": ""}),
    "isa_module": Port(isa_module, ISA),
    "ocnet_asp_oc": Port(asp_oc, {**ASP, **ONE_PROJECTION, **PROJECTIONS, **FUSE}),
    "ocnet_base_oc": Port(base_oc, {**ONE_PROJECTION, **PROJECTIONS, **FUSE}),
    "ocnet_pyramid_oc": Port(
        lambda a: PyramidOC(a["in_channels"], sizes=a["sizes"]),
        {**ONE_PROJECTION, **PROJECTIONS, r"^up_dr\.0\.": "widen.conv.", r"^up_dr\.1\.": "widen.bn.", **FUSE},
    ),
    "openseg_asp_oc": Port(asp_oc, {**ASP, **PROJECTIONS, **FUSE}),
    "openseg_base_oc": Port(base_oc, {**PROJECTIONS, **FUSE}),
    "psanet_bidirection": Port(BesideInput, PSANET),
    "psanet_small_mask": Port(BesideInput, PSANET),
    "apcnet_acm": Port(
        lambda a: ACM(a["in_channels"], a["channels"], a["pool_scale"], fusion=a["fusion"]),
        ACM_NAMES,
    ),
    "apcnet_head": Port(APCNetContext, {"acm_modules": "blocks", **ACM_NAMES, "bottleneck": "fuse"}),
    "cbam": Port(
        lambda a: CBAM(
            a["gate_channels"], a["reduction_ratio"], pools=a["pool_types"], spatial=not a.get("no_spatial", False)
        ),
        {
            r"ChannelGate\.mlp\.1": "mlp.0",
            r"ChannelGate\.mlp\.3": "mlp.2",
            r"SpatialGate\.spatial\.conv": "spatial.0",
            r"SpatialGate\.spatial\.bn": "spatial.1",
        },
    ),
    "eca_layer": Port(lambda a: ECA(a["channel"], a["k_size"]), {}),
    "emanet_emau": Port(
        lambda a: EMAUAndBases(a["c"], a["k"], a["stage_num"]),
        {"^mu$": "bases", r"conv1\.": "mid.", r"conv2\.0": "out.conv", r"conv2\.1": "out.bn"},
    ),
    "gcnet_context_block": Port(
        lambda a: GlobalContext(
            a["inplanes"],
            a["ratio"],
            pooling=a["pooling_type"],
            fusion=[kind.removeprefix("channel_") for kind in a["fusion_types"]],
        ),
        {"conv_mask": "mask", r"channel_(add|mul)_conv": r"\1"},
    ),
    "ocr_block": Port(
        OCRBlock,
        {
            r"conv3x3_ocr\.": "reduce.",
            r"aux_head\.0\.": "coarse.0.conv.",
            r"aux_head\.1\.0\.": "coarse.0.bn.",
            r"aux_head\.2\.": "coarse.1.",
            r"cls_head\.": "classifier.",
            "ocr_distri_head": "block",
            **OBJECT_CONTEXT,
        },
    ),
    "openseg_ocr": Port(
        lambda a: ObjectContext(
            a["in_channels"],
            a["key_channels"],
            out_channels=a["out_channels"],
            regions=0,
            bias=True,
            scale=a["scale"],
        ),
        {r"ocr\.": "", **OBJECT_CONTEXT},
    ),
    "se_layer": Port(lambda a: SE(a["channel"], a["reduction"], bias=False), {r"fc\.0": "fc1", r"fc\.2": "fc2"}),
    "a2_double_attention": Port(
        lambda a: DoubleAttention(
            a["in_channels"], width=a["c_m"], descriptors=a["c_n"], expand=a["reconstruct"], residual=False
        ),
        {"convA": "feature", "convB": "gather", "convV": "distribute", "conv_reconstruct": "expand"},
    ),
    "carafe_pack": Port(
        lambda a: CARAFEUpsample(
            a["channels"],
            scale=a["scale_factor"],
            kernel=a["up_kernel"],
            groups=a["up_group"],
            encoder_kernel=a["encoder_kernel"],
            encoder_dilation=a["encoder_dilation"],
            compressed=a["compressed_channels"],
        ),
        {"channel_compressor": "compressor", "content_encoder": "encoder"},
    ),
    "cgnl_dot": Port(
        lambda a: CompactNonLocal(
            a["inplanes"], width=a["planes"], groups=a["groups"] or 1, use_scale=a["use_scale"], kernel="dot"
        )
    ),
    "cgnl_rbf": Port(
        lambda a: CompactNonLocal(
            a["inplanes"],
            width=a["planes"],
            groups=a["groups"] or 1,
            use_scale=a["use_scale"],
            kernel="rbf",
            order=a["order"],
        )
    ),
    "dgmn_deformatt": Port(dgmn, DGMN),
    "dgmn_none": Port(dgmn, DGMN),
    "efficient_attention": Port(
        lambda a: EfficientSelfAttention(
            a["in_channels"], key_channels=a["key_channels"], value_channels=a["value_channels"], heads=a["head_count"]
        ),
        {"keys": "key", "queries": "query", "values": "value", "reprojection": "reproject"},
    ),
    "glore_2d": Port(
        lambda a: GlobalReasoning(a["num_in"], nodes=a["num_mid"], normalize=a["normalize"]),
        {
            "conv_state": "state",
            "conv_proj": "projection",
            "gcn.conv1": "mix_nodes",
            "gcn.conv2": "mix_states",
            "conv_extend": "extend",
            "blocker": "norm",
        },
    ),
    "latentgnn_asymmetric": Port(latentgnn, LATENTGNN),
    "latentgnn_symmetric": Port(latentgnn, LATENTGNN),
    "local_relation_op": Port(LocalRelation),
    "psa_hrnet_basicblock": Port(hrnet_block, {"deattn": "aa", **POLARIZED}),
    "psa_p": Port(lambda a: PolarizedSelfAttention(a["inplanes"]), {**POLARIZED, r"channel_up\.": "channel_up.0."}),
    "psa_s": Port(lambda a: PolarizedSelfAttention(a["inplanes"], mode="sequential"), POLARIZED),
    "psa_paperlike_parallel": Port(lambda a: PolarizedSelfAttention(a["channel"], form="paper"), POLARIZED_PAPER),
    "psa_paperlike_sequential": Port(
        lambda a: PolarizedSelfAttention(a["channel"], mode="sequential", form="paper"), POLARIZED_PAPER
    ),
}


def official_block(name: str, args: dict[str, Any], state: Mapping[str, Any]) -> nn.Module:
    """Our module for the reference block ``name``, built from the reference's arguments, its weights loaded strictly.

    Args:
        state: the reference's state dict, tensors or arrays. The module takes over its precision, in eval mode.
    """
    port = PORTS[name]
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        tensor = torch.as_tensor(value)
        for pattern, replacement in port.rename.items():
            key = re.sub(pattern, replacement, key)
        if key in ours and not torch.equal(ours[key], tensor):
            raise ValueError(f"{name}: two different tensors become {key}")
        if key:
            ours[key] = tensor
    module = port.build(args).eval()
    for key, own in module.state_dict().items():  # a linear layer and a 1x1 convolution hold the same matrix
        if key in ours and ours[key].squeeze().shape == own.squeeze().shape:
            ours[key] = ours[key].view_as(own)
    for dtype in {tensor.dtype for tensor in ours.values() if tensor.is_floating_point()}:
        module.to(dtype)
    module.load_state_dict(ours)
    return module


@dataclass(frozen=True)
class Golden:
    """One file of golden/official."""

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> "Golden":
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        return cls(json.loads(str(arrays.pop("meta"))), arrays)

    def tensors(self, prefix: str) -> list[Tensor]:
        """prefix0, prefix1, ... in float64."""
        n = sum(re.fullmatch(rf"{prefix}\d+", key) is not None for key in self.arrays)
        return [torch.from_numpy(self.arrays[f"{prefix}{i}"]).double() for i in range(n)]

    @property
    def state(self) -> dict[str, np.ndarray]:
        return {key.removeprefix("state/"): value for key, value in self.arrays.items() if key.startswith("state/")}

    @property
    def extra(self) -> dict[str, Tensor]:
        return {
            key.removeprefix("extra/"): torch.from_numpy(value)
            for key, value in self.arrays.items()
            if key.startswith("extra/")
        }

    def block(self) -> nn.Module:
        """Our block with this file's weights, in float64."""
        return official_block(self.meta["name"], self.meta["args"], self.state).double()
