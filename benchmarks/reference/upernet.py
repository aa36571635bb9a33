"""UPerNet's fusion as the formulas stand: every level enlarged, all concatenated, then convolved."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.blocks._layers import resize
from lightning_app.heads import upernet


class UPerNet(upernet.UPerNet):
    def context(self, features: Sequence[Tensor]) -> Tensor:
        *finer, top = (features[level] for level in self.levels)
        maps = [top]
        for scale, branch in zip(self.pyramid.scales, self.pyramid.branches, strict=True):
            maps.append(resize(branch(F.adaptive_avg_pool2d(top, scale)), top.shape[2:], self.align_corners))
        laterals = [
            *(lateral(x) for lateral, x in zip(self.laterals, finer, strict=True)),
            self.pyramid.fuse(torch.cat(maps, dim=1)),
        ]
        for i in reversed(range(len(finer))):
            laterals[i] = laterals[i] + resize(laterals[i + 1], laterals[i].shape[2:], self.align_corners)
        outs = [out(x) for out, x in zip(self.outs, laterals[:-1], strict=True)] + laterals[-1:]
        return self.fuse(torch.cat([resize(x, outs[0].shape[2:], self.align_corners) for x in outs], dim=1))
