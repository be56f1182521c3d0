"""What only moves numbers or picks them: views, joins, padding, pools, indices, resampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.products import Operation

__all__ = ["INDICES", "PICK", "POOLS", "SHAPES", "SINCE_2_12"]

IMAGE = (2, 4, 5, 6)


def _padded(mode: str) -> dict[str, Operation]:
    shapes = {1: (2, 4, 5), 2: IMAGE, 3: (1, 2, 4, 4, 4)}
    widths = {1: (2, 1), 2: (1, 2, 0, 3), 3: (1, 0, 2, 1, 1, 1)}

    def padding(dims: int) -> Operation:
        return lambda x: F.pad(x, widths[dims], mode=mode), [shapes[dims]]

    return {f"{mode} padding in {dims}d": padding(dims) for dims in shapes}


def _resized() -> dict[str, Operation]:
    modes = {
        **dict.fromkeys(("nearest", "nearest-exact", "area"), (1, 2, 3)),
        "linear": (1,),
        "bilinear": (2,),
        "bicubic": (2,),
        "trilinear": (3,),
    }
    shapes = {1: (2, 4, 5), 2: IMAGE, 3: (1, 2, 4, 3, 4)}

    def resized(mode: str, dims: int) -> Operation:
        return lambda x: F.interpolate(x, scale_factor=1.5, mode=mode), [shapes[dims]]

    return {f"resized by {mode} in {d}d": resized(mode, d) for mode, dims in modes.items() for d in dims}


POINTS = torch.linspace(-1.1, 1.2, 48).double().view(2, 3, 4, 2)
VOLUME = torch.linspace(-1.1, 1.2, 36).double().view(1, 2, 3, 2, 3)
SHAPES: dict[str, Operation] = {
    "flatten, view, squeeze": (lambda x: x.flatten(1).view(2, 1, -1).squeeze(1).unsqueeze(-1), [IMAGE]),
    "squeeze several": (lambda x: x[:, :1, :1].squeeze((1, 2)).unsqueeze(0).squeeze(), [IMAGE]),
    "permute, transpose": (lambda x: x.permute(0, -1, 1, 2).transpose(-1, 1).contiguous()[0, 0].t(), [IMAGE]),
    "movedim, swapaxes, mT, T": (lambda x: x.movedim(1, -1).swapaxes(0, 2).mT @ x[0, 0, :2, :2].T, [(2, 2, 5, 6)]),
    "expand, repeat": (lambda x: x.expand(3, 4, 5).repeat(2, 1, 1, 1), [(4, 1)]),
    "repeat interleaved": (lambda x: x.repeat_interleave(2, 1) * x.tile(1, 2, 1, 1), [IMAGE]),
    "slice, select": (lambda x: x[:, -1, 1:4:2].select(-1, -2), [IMAGE]),
    "slices from the end": (lambda x: x[:, :-1, -4:-1, 1:] * x[..., -3:, -5::2, -5:], [IMAGE]),
    "differences": (lambda x: x[..., 1:] - x[..., :-1] + x.diff(), [IMAGE]),
    "narrow": (lambda x: x.narrow(1, -3, 2) * x.narrow(1, 0, 2), [IMAGE]),
    "gradient": (lambda x: torch.gradient(x, dim=2)[0], [IMAGE]),
    "chunk": (lambda x: torch.add(*x.chunk(2, 1)) * x.split([1, 3], 1)[1][:, :2], [IMAGE]),
    "one chunk of three": (lambda x: x.split(2, -1)[1], [IMAGE]),
    "chunks of their own": (
        lambda x: torch.mul(*torch.unsafe_chunk(x, 2, 1)) + torch.unsafe_split_with_sizes(x, [2, 2], 1)[0], [IMAGE]
    ),
    "unbind, stack": (lambda x: torch.stack([t * t for t in x.unbind(1)[:2]], -1), [IMAGE]),
    "concatenate": (lambda a, b: torch.cat([a, b, a], -3), [IMAGE, (2, 1, 5, 6)]),
    "concatenate with a constant": (lambda a: torch.cat([torch.ones(IMAGE).double(), a], 1), [IMAGE]),
    "to another dtype and back": (lambda x: x.float().double(), [IMAGE]),
    "flip, roll, turn": (lambda x: x.flip(1, -1).roll((1, -2), (2, 3)).rot90(1, (-2, -1)), [IMAGE]),
    "roll all": (lambda x: x.roll(3), [IMAGE]),
    "shift by pixels": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2)[..., :8], 4), [(1, 4, 4, 5)]),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), [IMAGE]),
    "windows": (lambda x: x.unfold(2, 3, 2) * x.unfold(2, 3, 2), [IMAGE]),
    "im2col, col2im": (lambda x: F.fold(F.unfold(x, 2, padding=1) ** 2, (5, 6), 2, padding=1), [IMAGE]),
    "as strided": (lambda x: x.as_strided((3, 4), (5, 2), 1), [IMAGE]),
    "as strided, of a view": (lambda x: x.transpose(2, 3).as_strided((3, 4), (5, 2), 1), [IMAGE]),
    "diagonals": (lambda x: x.diagonal(1, 2, 3) * x[..., :5].diagonal(0, -2, -1), [(2, 5, 5, 6)]),
    "on a diagonal": (lambda x: torch.diag_embed(x, -1, 0, 2), [(2, 3)]),
    "blocks": (torch.block_diag, [(2, 3), (1, 2)]),
    "copied views": (lambda x: torch.permute_copy(torch.slice_copy(x, 1, -3, -1), (1, 0, 2, 3)), [IMAGE]),
    "to a place of its own": (lambda x: x.clone().contiguous(memory_format=torch.channels_last), [IMAGE]),
    **_padded("constant"),
    **_padded("reflect"),
    **_padded("replicate"),
    **_resized(),
    "resized, corners kept": (lambda x: F.interpolate(x, (7, 4), mode="bicubic", align_corners=True), [IMAGE]),
    "sampled at a grid": (lambda x: F.grid_sample(x, POINTS.to(x.dtype), align_corners=False), [IMAGE]),
    "sampled in a volume": (
        lambda x: F.grid_sample(x, VOLUME.to(x.dtype), padding_mode="border", align_corners=True), [(1, 2, 3, 4, 3)]
    ),
    "made smaller smoothly": (
        lambda x: sum(F.interpolate(x, (3, 3), mode=m, antialias=True) for m in ("bilinear", "bicubic")), [IMAGE]
    ),
}  # fmt: skip
POOLS: dict[str, Operation] = {
    "max pool": (lambda x: F.max_pool2d(x, 2), [IMAGE]),
    "max pool 1d": (lambda x: F.max_pool1d(x, 2), [(2, 4, 6)]),
    "max pool 3d": (lambda x: F.max_pool3d(x, 2), [(1, 2, 4, 4, 4)]),
    "max pool of one image": (lambda x: F.max_pool2d(x, 2), [IMAGE[1:]]),
    "overlapping max pool": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), [IMAGE]),
    "average pool": (lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), [IMAGE]),
    "average pool by a number": (lambda x: F.avg_pool2d(x, 2, divisor_override=-3), [IMAGE]),
    "average pool 1d": (lambda x: F.avg_pool1d(x, 2, ceil_mode=True), [(2, 4, 5)]),
    "average pool 3d": (lambda x: F.avg_pool3d(x, 2), [(1, 2, 4, 4, 4)]),
    "adaptive average pool": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), [IMAGE]),
    "adaptive average pool to one": (lambda x: F.adaptive_avg_pool2d(x, 1), [IMAGE]),
    "adaptive average pool 1d": (lambda x: F.adaptive_avg_pool1d(x, 2), [(2, 4, 6)]),
    "adaptive average pool 3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 3, 2)), [(1, 2, 4, 4, 4)]),
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), [IMAGE]),
    "adaptive max pool 1d": (lambda x: F.adaptive_max_pool1d(x, 2), [(2, 4, 6)]),
    "adaptive max pool 3d": (lambda x: F.adaptive_max_pool3d(x, 2), [(1, 2, 4, 4, 4)]),
    "fractional max pool": (lambda x: _fractional(x), [IMAGE]),
    "power pool": (lambda x: F.lp_pool2d(x * x + 1, 3, 2), [IMAGE]),
    "max unpool": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), [(2, 4, 4, 6)]),
}


def _fractional(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return F.fractional_max_pool2d(x, 2, output_size=(2, 3))


PICK = torch.tensor([[0, 5, 5], [2, 1, 0]])
ROWS = torch.tensor([0, 2, 2])
INDICES: dict[str, Operation] = {
    "indexed": (lambda x: x[:, ROWS] * x[torch.tensor([1, 0, 1])[:, None], ROWS[:2]].mean(), [IMAGE]),
    "masked": (lambda x: x[x.detach() > 0].sum() * x.masked_select(torch.eye(5, 6).bool()), [IMAGE]),
    "index select, take": (lambda x: x.index_select(1, ROWS).sum() * x.take(PICK), [IMAGE]),
    "gather": (lambda x: x.flatten(1).gather(1, PICK), [IMAGE]),
    "take along": (lambda x: torch.take_along_dim(x, x.detach().argsort(1), 1)[:, :2], [IMAGE]),
    "embedding": (lambda w: F.embedding(PICK, w), [(6, 3)]),
    "embedding with padding": (lambda w: F.embedding(PICK, w, padding_idx=0), [(6, 3)]),
    "embedding, scaled": (lambda w: F.embedding(PICK, w, scale_grad_by_freq=True), [(6, 3)]),
    "embedding bags": (lambda w: torch.mul(*(F.embedding_bag(PICK, w, mode=m) for m in ("sum", "mean"))), [(6, 3)]),
    "largest of embeddings": (lambda w: F.embedding_bag(PICK, w, mode="max"), [(6, 3)]),
    "largest": (lambda x: x.max(1)[0] * x.max(2, keepdim=True)[0].sum() + x.max() * x.amax((0, 2)).sum(), [IMAGE]),
    "smallest": (lambda x: x.min(1)[0] + x.min() * x.amin(1, keepdim=True)[:, 0], [IMAGE]),
    "equal ones": (lambda x: x.relu().amax(1) + x.relu().amin(1) + x.relu().max(), [IMAGE]),
    "sorted, top, median": (
        lambda x: x.sort(1, descending=True)[0][:, :1] + x.topk(2, 1)[0][:, 1:] + x.median(1, True)[0], [IMAGE]
    ),
    "other orders": (
        lambda x: x.median() + x.kthvalue(2, 1)[0] + x.nanmedian(1)[0] + x.sort(stable=True, dim=1)[0][:, 0],
        [IMAGE],
    ),
    "most frequent": (lambda x: x.mode(1)[0], [IMAGE]),
    "quantile": (lambda x: x.quantile(0.4, dim=1), [IMAGE]),
    "largest so far": (lambda x: x.cummax(1)[0] * x.cummin(2)[0], [IMAGE]),
    "scattered": (
        lambda x, y: x.flatten(1).scatter(1, PICK, y) + x.flatten(1).scatter_add(1, PICK, y * y), [IMAGE, (2, 3)]
    ),
    "scattered number": (lambda x: x.flatten(1).scatter(1, PICK, 0.5), [IMAGE]),
    "put": (
        lambda x, y: x.index_put((torch.tensor([1, 0]),), y, accumulate=True) + x.index_add(0, ROWS[:2] // 2, y),
        [(2, 3), (2, 3)],
    ),
    "copied to rows": (lambda x, y: x.index_copy(0, torch.tensor([2, 0]), y), [(3, 4), (2, 4)]),
    "filled with a value": (lambda x, y: x.index_fill(0, ROWS[:1], y.sum()), [(3, 4), (1,)]),
    "masked scatter": (lambda x, y: x.masked_scatter(torch.eye(3, 4).bool(), y), [(3, 4), (2, 4)]),
    "slices replaced": (
        lambda x, y: torch.slice_scatter(x, y, 0, 0, 2) + torch.select_scatter(x, y[0], 0, -1), [(3, 4), (2, 4)]
    ),
    "diagonal replaced": (lambda x, y: torch.diagonal_scatter(x, y), [(3, 4), (3,)]),
}  # fmt: skip

# Older versions of torch cannot differentiate these even once.
SINCE_2_12: dict[str, Operation] = {
    "smallest and largest": (lambda x: torch.mul(*x.aminmax(dim=1)), [IMAGE]),
    "narrow, copied": (lambda x: x.narrow_copy(1, 0, 2), [IMAGE]),
}
