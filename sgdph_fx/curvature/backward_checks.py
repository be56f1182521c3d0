"""What gives away a backward that autograd cannot differentiate rightly, looked for while it runs.

The backward of any operation is linear in the gradient g that it gets: B(g) = J g, where J may depend on the inputs x.
Autograd differentiates B by what it has seen of it. It has not seen what was computed in NumPy, in a kernel, under
``no_grad``, or in the forward pass, and takes that for a constant. Four signs tell:

- a result without a graph, though g has one, that is not zero;
- a derivative by g that does not give B back, ∂B/∂g · g ≠ B;
- a slope that autograd takes for a constant: B multiplies g by numbers of the shape of an input or output, none of
  which hang on x. A mask is a constant as well, so two different values are none of a slope's;
- a derivative by x that is not symmetric: it is the Hessian of ⟨g, f(x)⟩ if all that hangs on x is followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.autograd_graph import nodes_below, passing_nothing_on
from sgdph_fx.curvature.precision import widest_float

__all__ = [
    "WRITTEN_OVER",
    "has_constant_slope",
    "is_cut",
    "is_linear_in_gradient",
    "is_symmetric",
    "is_symmetric_block",
    "mixed_signs",
]

Tensors = Sequence["Tensor | None"]

WRITTEN_OVER = "modified by an inplace operation"
"""Of torch's error where a tensor that a backward needs is not what it was."""

_VALUES_OF_A_MASK = 2
_ROUNDINGS = 4


def is_cut(by_inputs: Tensors, g: Tensors) -> bool:
    """Whether a result is not zero and has no graph, though a gradient has one."""
    if not any(t is not None and t.requires_grad for t in g):
        return False
    return any(t is not None and not t.requires_grad and bool(_values(t).any()) for t in by_inputs)


def is_linear_in_gradient(by_inputs: Tensors, g: Tensors) -> bool:
    """Whether autograd's derivative by g, applied to g, gives the results back: ⟨w, ∂B/∂g · g⟩ = ⟨w, B⟩ for one w."""
    outputs, given = _followed(by_inputs), _followed(g)
    starts = [t.grad_fn for t in outputs]
    if not outputs or not given or any(type(inner).__name__ == "Error" for inner in nodes_below(*starts)):
        return True  # torch says itself what it refuses
    along = [mixed_signs(t) for t in outputs]
    found = torch.autograd.grad(outputs, given, along, retain_graph=True, allow_unused=True)
    with torch.no_grad():
        off = _product(outputs, along)
        off -= sum(_product([f], [t]) for f, t in zip(found, given, strict=True) if f is not None)
        size = _product([t.abs() for t in outputs], [t.abs() for t in along])
    return not abs(off) > _tolerance(outputs) * size  # what is not finite tells nothing


def has_constant_slope(node: Node, by_inputs: Tensors, g: Tensors) -> bool:
    """Whether the backward of a Python function multiplies by a slope that autograd takes for a constant.

    Numbers of the shape of an input or output are one where no result hangs on an input, and where no data entered the
    function that they could be: then only its forward pass can have made them.
    """
    inputs = [(child, number) for child, number in node.next_functions if child is not None]
    sources = {node, *(child for child, _ in inputs)}
    declared = [*node._input_metadata, *(child._input_metadata[number] for child, number in inputs)]
    shapes = {tuple(m.shape) for m in declared}
    starts = [t.grad_fn for t in by_inputs if t is not None]
    ends = {t.grad_fn for t in g if t is not None}
    slope, hangs = False, any(start in sources for start in starts)
    for inner in nodes_below(*starts, ends=ends | sources):
        if type(inner).__name__ == "Error":
            return False
        slope = slope or any(tuple(t.shape) in shapes and _varies(t) for t in _constants(inner))
        hangs = hangs or any(child in sources for child, _ in inner.next_functions)
    had_data = len(inputs) < len(node.next_functions)
    return slope and not (hangs and had_data)


def is_symmetric(node: Node, by_inputs: Tensors, g: Tensors) -> bool:
    """Whether the derivative of the results by the inputs is symmetric, as the Hessian of ⟨g, f(x)⟩ is."""
    rows = [
        (t, GradientEdge(child, number))
        for t, (child, number) in zip(by_inputs, node.next_functions, strict=False)
        if t is not None and child is not None and _followed([t])
    ]
    outputs = [t for t, _ in rows]
    starts = [t.grad_fn for t in outputs]
    if not outputs or any(type(inner).__name__ == "Error" for inner in nodes_below(*starts)):
        return True
    edges = [edge for _, edge in rows]

    def products(along: list[Tensor]) -> Tensors:
        return torch.autograd.grad(outputs, edges, along, retain_graph=True, allow_unused=True)

    # Neither g nor one input counts as a function of another.
    with passing_nothing_on(
        {*(edge.node for edge in edges), *(t.grad_fn for t in g if t is not None)} - {node}
    ):
        try:
            return _is_symmetric(outputs, products)
        except RuntimeError as error:
            if WRITTEN_OVER in str(error):
                raise
            return True  # torch says itself what it refuses


def is_symmetric_block(gradient: Tensor, product: Callable[[Tensor], Tensor]) -> bool:
    """Whether the derivative of a gradient is symmetric, as :func:`is_symmetric`."""
    return _is_symmetric([gradient], lambda along: [product(along[0])])


@torch.no_grad()
def _is_symmetric(outputs: Sequence[Tensor], products: Callable[[list[Tensor]], Tensors]) -> bool:
    """Whether ⟨v, Hu⟩ = ⟨u, Hv⟩ for one u and v.

    Where H is nothing but rounding, as by a bias that a batch norm absorbs, H (u + v) tells how much of it is.
    """
    u = [mixed_signs(t) for t in outputs]
    v = [t.square().cos() for t in u]
    by_u, by_v, by_both = products(u), products(v), products([a + b for a, b in zip(u, v, strict=True)])
    one, size = _paired(by_u, v)
    other, also = _paired(by_v, u)
    off = [
        None if a is None or b is None or c is None else c - a - b
        for a, b, c in zip(by_u, by_v, by_both, strict=True)
    ]
    _, rounding = _paired(off, u)
    # What is not finite tells nothing.
    return not abs(one - other) > _tolerance(outputs) * (size + also) + _ROUNDINGS * rounding


def _paired(found: Tensors, along: Sequence[Tensor]) -> tuple[float, float]:
    """The product of the two, and of their absolute values."""
    rows = [(f, t) for f, t in zip(found, along, strict=True) if f is not None]
    first, second = [f for f, _ in rows], [t for _, t in rows]
    return _product(first, second), _product([f.abs() for f in first], [t.abs() for t in second])


def _constants(node: Any) -> Iterator[Tensor]:
    """Numbers that the operation saved, and that nothing differentiable has made; leaves that are no parameters."""
    if type(node).__name__ == "AccumulateGrad":
        yield from () if isinstance(node.variable, nn.Parameter) else (node.variable,)
        return
    names = [name for name in dir(node) if name.startswith("_saved_") and "_sym_" not in name]
    for value in (getattr(node, name) for name in names):
        if isinstance(value, Tensor) and not value.requires_grad and value.is_floating_point():
            yield value


def _varies(t: Tensor) -> bool:
    return t.layout is torch.strided and int(torch.unique(t.detach()).numel()) > _VALUES_OF_A_MASK


def _followed(tensors: Tensors) -> list[Tensor]:
    present = [t for t in tensors if t is not None and t.requires_grad]
    return [t for t in present if t.layout is torch.strided and not t.is_complex()]


def _values(t: Tensor) -> Tensor:
    return t if t.layout is torch.strided else t.detach().to_dense()


def mixed_signs(like: Any) -> Tensor:
    """Numbers of either sign, none of them zero and no two alike: some operations take the logarithm of a gradient.

    Args:
        like: A tensor, or what autograd knows of one: shape, dtype and device.
    """
    count, device = math.prod(like.shape), like.device
    numbers = torch.linspace(0.5, 1.5, count, dtype=widest_float(device), device=device)
    numbers[1::2].neg_()
    return numbers.to(like.dtype).view(tuple(like.shape))


def _product(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    dtypes = [widest_float(t.device) for t in first]
    columns = zip(first, second, dtypes, strict=True)
    return sum(float((a.to(dtype) * b.to(dtype)).sum()) for a, b, dtype in columns)


def _tolerance(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(max(torch.finfo(t.dtype).eps for t in tensors))
