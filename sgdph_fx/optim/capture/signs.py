"""Random signs of captured steps: drawn by the host outside of any graph, into memory that stays where it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sgdph_fx.optim.hessian.request import HessianRequest

__all__ = ["Signs"]


class Signs:
    """The place of each due parameter's signs, or of what decides them.

    Args:
        device: Where.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._places: dict[int, Tensor] = {}

    def drawn(self, request: HessianRequest | None) -> HessianRequest | None:
        """The request with this step's signs in their place; as it is where no signs take part."""
        if request is None or request.probe is None or not request.draws_signs:
            return request
        if request.is_gauss_newton:
            return replace(request, key=self._put(request, request.sign_key))
        vectors = list(request.probe.vectors(request.parameter, request.generator))
        place = self._put(request, torch.stack(vectors))
        return replace(
            request, probe=replace(request.probe, vectors=lambda parameter, generator: iter(place))
        )

    def _put(self, request: HessianRequest, numbers: Tensor) -> Tensor:
        place = self._places.get(id(request.parameter))
        if place is None or (place.shape, place.dtype) != (numbers.shape, numbers.dtype):
            place = self._places[id(request.parameter)] = numbers.to(self._device)
        else:
            place.copy_(numbers, non_blocking=True)
        return place
