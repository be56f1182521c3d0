"""Lightning's own BackboneFinetuning: a backbone that is frozen first and joins after some epochs."""

from __future__ import annotations

import warnings
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.data import batches
from sgdph_fx import SGDPH, LightningMixin, param_groups, prepare

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:GPU available.*"),
    pytest.mark.filterwarnings("ignore:.*parameters to be frozen already exist.*:UserWarning"),
]

EXAMPLE = torch.randn(2, 3, 12, 12)
THAWED_AT, PER_EPOCH = 2, 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


class Module(LightningMixin, lightning.LightningModule):
    """Trains what is given to its optimizer; ``backbone`` is where Lightning's callback looks for it."""

    def __init__(self, net: Net, groups: list[dict[str, Any]]) -> None:
        super().__init__()
        self.net = net
        self.groups = groups
        self.made: list[SGDPH] = []

    @property
    def backbone(self) -> nn.Module:
        return self.net.backbone

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> SGDPH:
        self.made.append(SGDPH(self.groups, lr=0.02))
        return self.made[0]


def fit(module: Module, callback: lightning.Callback, epochs: int = 4, **more: Any) -> SGDPH:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[callback],
        **more,
    )
    trainer.fit(module, batches())
    return module.made[0]


def stock() -> BackboneFinetuning:
    return BackboneFinetuning(unfreeze_backbone_at_epoch=THAWED_AT, backbone_initial_lr=0.01, verbose=False)


def test_prepared_before_it_is_frozen_the_groups_hold_the_backbone_and_it_trains_once_thawed() -> None:
    prepared = prepare(Net(), EXAMPLE)
    module = Module(prepared.model, prepared.param_groups)
    start = module.net.backbone[0].weight.detach().clone()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizer = fit(module, stock(), epochs=6)
    assert not torch.equal(module.net.backbone[0].weight, start)
    assert "hessian_average" in optimizer.state[module.net.backbone[1].weight]
    assert [str(w.message) for w in told if "no optimizer holds" in str(w.message)] == []


def test_prepared_after_it_is_frozen_the_stock_callback_adds_it_as_first_order_and_that_is_told() -> None:
    net = Net()
    net.backbone.requires_grad_(False)
    prepared = prepare(net, EXAMPLE)
    module = Module(prepared.model, prepared.param_groups)
    start = module.net.backbone[0].weight.detach().clone()
    with pytest.warns(RuntimeWarning, match=r"does not say its order.*optimizer\.thaw"):
        optimizer = fit(module, stock())
    assert not torch.equal(module.net.backbone[0].weight, start)
    assert optimizer.param_groups[-1]["order"] == 1
    assert optimizer.param_groups[-1]["lr"] > 0
    assert len(optimizer.param_groups[-1]["param_names"]) == len(list(module.net.backbone.parameters()))


class Thaw(BaseFinetuning):  # type: ignore[misc]
    """As the stock callback, with orders, roles and turns."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == THAWED_AT:
            self.make_trainable(pl_module.backbone)
            optimizer.thaw(param_groups(pl_module.net, EXAMPLE), lr=0.01)


def test_with_thaw_it_joins_with_its_order_and_as_a_loop_written_out_would_have_it() -> None:
    net = Net()
    net.backbone.requires_grad_(False)
    prepared = prepare(net, EXAMPLE)
    module = Module(prepared.model, prepared.param_groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit(module, Thaw())

    other = Net()
    other.backbone.requires_grad_(False)
    model, groups, _ = prepare(other, EXAMPLE)
    optimizer = SGDPH(groups, lr=0.02)
    for epoch in range(4):
        if epoch == THAWED_AT:
            model.backbone.requires_grad_(True)
            optimizer.thaw(param_groups(model, EXAMPLE), lr=0.01)
        model.backbone.train(True)
        for images, labels in batches():
            optimizer.zero_grad()
            optimizer.backward(cross_entropy(model(images), labels))
            optimizer.step()
    found, expected = dict(module.net.named_parameters()), dict(model.named_parameters())
    assert found.keys() == expected.keys()
    for name, p in found.items():
        torch.testing.assert_close(p, expected[name], rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
    orders = {n: g["order"] for g in optimizer.param_groups for n in g["param_names"]}
    assert orders["backbone.1.weight"] == 2
    assert orders["backbone.0.weight"] == 1
