"""Hints on models whose source says why they are given, and their near neighbours that get none."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from sgdph_fx import Config, analyze, prepare
from sgdph_fx.errors import ConfigError
from sgdph_fx.optim.variants import VARIANTS


def hints(model: nn.Module, inputs: Tensor | None = None, **config: object) -> set[tuple[str, str]]:
    return {(hint.code, hint.where) for hint in analyze(model, inputs, config=Config(**config)).hints}  # type: ignore[arg-type]


def conv(bias: bool = False, frozen: bool = False) -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=bias)
    layer.weight.requires_grad_(not frozen)
    return layer


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.functional = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(nn.functional.linear(self.used(x), self.functional.weight, self.functional.bias))


class HeadFirst(nn.Module):
    """Its head is registered before its body, and so is not the last."""

    def __init__(self, head: nn.Linear, after: nn.Module | None = None) -> None:
        super().__init__()
        self.head, self.after = head, after
        self.body = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.body(x))
        return x if self.after is None else self.after(x)


def test_a_linear_layer_whose_bias_is_the_output_s() -> None:
    assert hints(HeadFirst(nn.Linear(2, 2))) == {("classifier-bias", "head.bias")}
    assert hints(HeadFirst(nn.Linear(2, 4), nn.Unflatten(1, (2, 2)))) == {("classifier-bias", "head.bias")}
    assert hints(HeadFirst(nn.Linear(2, 2), nn.ReLU())) == set()
    assert hints(HeadFirst(nn.Linear(2, 2, bias=False))) == set()
    assert hints(HeadFirst(nn.Linear(2, 2)), rules={"head.bias": "first-order"}) == set()


def test_the_last_parameter_of_all_needs_no_hint_as_the_default_steps_it_by_sgd() -> None:
    assert hints(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == set()
    assert VARIANTS["authors"].last_is_first_order


def test_the_ones_probe_sees_no_curvature_in_a_classifier_s_bias() -> None:
    """The fact behind that hint, by torch's own Hessian."""
    bias = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    target = torch.tensor([1])
    hessian = torch.func.hessian(lambda b: nn.functional.cross_entropy(b[None], target))(bias)
    assert hessian.abs().max() > 0.05
    torch.testing.assert_close(hessian.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)


def test_a_bias_that_is_used_beside_its_norm_is_not_redundant() -> None:
    class Uses(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.conv, self.norm, self.how = conv(bias=True), nn.BatchNorm2d(3), how

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x)).relu()
            if self.how == "read":
                assert self.conv.bias is not None
                return y + self.conv.bias.sum()
            return y + self.conv(x).tanh() if self.how == "called twice" else y

    for how, absorbed in (("normalized", True), ("read", False), ("called twice", False)):
        assert (("absorbed-bias", "conv.bias") in hints(Uses(how))) is absorbed, how


def test_norms_without_scale_and_shift_are_one_hint() -> None:
    plain = [nn.BatchNorm2d(3, affine=False) for _ in range(4)]
    model = nn.Sequential(conv(), plain[0], conv(), plain[1], conv(), plain[2], conv(), plain[3], nn.ReLU())
    (hint,) = analyze(model).hints
    assert (hint.code, hint.where) == ("norm-without-affine", "1")
    assert "4 norms (1, 3, 5 and 1 more)" in hint.message
    assert hints(nn.Sequential(conv(), nn.BatchNorm2d(3))) == set()
    # A norm that takes no statistics normalizes nothing, so nobody misses its scale.
    assert hints(nn.Sequential(conv(), nn.BatchNorm2d(3, affine=False).eval(), nn.ReLU())) == set()


def test_a_frozen_norm_after_a_convolution_that_is_not_decoupled() -> None:
    frozen = ("frozen-norm", "1")
    assert hints(nn.Sequential(conv(frozen=True), FrozenBatchNorm2d(3), conv())) == {frozen}
    # Here the convolution trains, is bare, and gets a gain: something is second-order after all.
    assert hints(nn.Sequential(conv(), FrozenBatchNorm2d(3), conv())) == set()


def test_a_filter_of_zeros_in_a_decoupled_convolution() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv(), nn.BatchNorm2d(3))
    nn.init.zeros_(model[0].weight[1])  # type: ignore[index, arg-type]
    nn.init.zeros_(model[2].weight[1])  # type: ignore[index, arg-type]
    (hint,) = analyze(model).hints
    assert (hint.code, hint.where, hint.message) == ("zero-filter", "0", "1 of 3 output filters are zero")


def test_a_hook_after_the_gradient_is_one_as_well() -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    model[0].weight.register_post_accumulate_grad_hook(lambda weight: None)  # type: ignore[union-attr, operator]
    assert hints(model) == {("hooked-weight", "0.weight")}


def test_a_gradient_hook_on_a_decoupled_weight() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv(), nn.BatchNorm2d(3), conv())
    for layer in model[0], model[2]:  # the second one is normalized, and keeps its weight
        layer.weight.register_hook(lambda gradient: 0 * gradient)  # type: ignore[union-attr, operator]
    (hint,) = analyze(model).hints
    assert (hint.code, hint.where) == ("hooked-weight", "0.weight")
    kept = Config(rules={"0": "keep"})
    assert analyze(model, config=kept).hints == ()
    # The fact behind the hint: the mask freezes the weight of a kept convolution, and not that of a decoupled one.
    for config, frozen in ((kept, True), (None, False)):
        prepared = prepare(model, config=config).model
        before = prepared[0].weight.detach().clone()  # type: ignore[index]
        prepared(torch.rand(2, 3, 8, 8)).square().sum().backward()
        torch.optim.SGD(prepared.parameters(), 0.1).step()
        assert torch.equal(before, prepared[0].weight) is frozen  # type: ignore[index]


@pytest.mark.parametrize("inputs", [None, torch.zeros(1, 2)])
def test_parameters_that_training_uses_nowhere(inputs: Tensor | None) -> None:
    (hint,) = analyze(Unused(), inputs).hints
    assert (hint.code, hint.where) == ("never-reached", "unused.weight")
    assert "2 parameters (unused.weight, unused.bias)" in hint.message


def test_what_evaluation_alone_shows_is_not_called_unused_in_training() -> None:
    class NeedsTargets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.auxiliary = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.body(x))
            if self.training:
                raise ValueError("targets are needed in training, for the auxiliary loss")
            return x

    assert {code for code, _ in hints(NeedsTargets(), torch.zeros(1, 2))} == {"training-run-failed"}


def test_a_bias_that_is_read_alone_does_not_call_its_convolution() -> None:
    class ReadsBias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = conv(), conv(bias=True)

        def forward(self, x: Tensor) -> Tensor:
            assert self.other.bias is not None
            return torch.relu(self.used(x) + self.other.bias.view(-1, 1, 1))

    assert hints(ReadsBias(), torch.zeros(1, 3, 4, 4)) == {("never-called", "other")}


def test_a_parameter_inside_a_module_that_is_one_part_is_reached() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.attention(x, x, x)[0])

    assert hints(Attends(), torch.zeros(3, 2, 4)) == set()


def test_a_hint_that_is_not_wanted_stays_out() -> None:
    model = nn.Sequential(conv(bias=True), nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.Linear(48, 2))
    everything = {("absorbed-bias", "0.bias"), ("norm-without-affine", "1")}
    assert hints(model) == everything
    assert hints(model, silence=["absorbed-bias"]) == {("norm-without-affine", "1")}
    with pytest.raises(ConfigError, match="no hint's code"):
        Config(silence=["absorbed"])
