"""The recipe files, against the paper: what its text says about its tables must follow from our copy of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.datasets.image_files import IMAGE_SETS
from experiments.datasets.load import DATASETS
from experiments.networks import MLPS, NETWORKS, TORCHVISION
from experiments.running.recipe_files import SCALES, read_recipe, recipe_names
from experiments.training.methods import METHODS

OTHERS = ("sgdm", "adam", "adamw", "adabelief", "adahessian", "apollo")


def _paper(name: str, row: str) -> dict[str, float]:
    return {cell.column: cell.paper[0] for cell in read_recipe(name).cells if cell.row == row and cell.paper}


def test_there_is_a_file_for_each_table_and_figure() -> None:
    assert {*(f"table{k}" for k in range(1, 9)), *(f"figure{k}" for k in range(3, 6)), "cpu"} <= set(
        recipe_names()
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", recipe_names())
def test_every_cell_is_a_run_that_exists(name: str, scale: str) -> None:
    experiment = read_recipe(name, scale)
    assert len(experiment.cells) == len(experiment.rows) * len(experiment.columns)
    for cell in experiment.cells:
        assert cell.config.method in METHODS
        assert cell.config.network in {**NETWORKS, **MLPS, **TORCHVISION}
        assert cell.data.dataset in {**DATASETS, **IMAGE_SETS, "burgers": None}
        assert cell.config.lr > 0 or cell.grid or cell.tuned_as
        assert (cell.config.width == 64) == (scale != "smoke" or cell.config.network in TORCHVISION) or (
            name in ("cpu", "controls-pinn")
        )


def test_full_scale_has_the_papers_schedule() -> None:
    for name, epochs, every, batch in (
        ("table1", 200, 60, 128),
        ("table2", 100, 30, 128),
        ("table3", 100, 30, 256),
    ):
        for cell in read_recipe(name).cells:
            run = cell.config
            assert (run.epochs, run.decay_every, run.batch_size) == (epochs, every, batch)
            assert cell.data.train_size is None
    assert read_recipe("table1").seeds == 4


def test_smoke_scale_is_small() -> None:
    for cell in read_recipe("table8", "smoke").cells:
        assert (cell.config.epochs, cell.config.batch_size, cell.data.train_size) == (1, 16, 64)


def test_settings_of_section_4_1() -> None:
    rates = dict(zip((*OTHERS, "sgd-ph"), (0.1, 0.001, 0.001, 0.001, 0.15, 0.01, 0.01), strict=True))
    decays = dict(zip((*OTHERS, "sgd-ph"), (5e-4, 5e-4, 0.5, 0.5, 5e-4, 2.5e-4, 5e-3), strict=True))
    for cell in read_recipe("table1").cells:
        assert (cell.config.lr, cell.config.weight_decay) == (rates[cell.column], decays[cell.column])


def test_gains_on_cifar100_are_those_of_the_text() -> None:
    # "surpasses SGD from 0.76% ~ 2.93% on CIFAR100"
    rows = [row for row in read_recipe("table1").rows if row.startswith("cifar100")]
    gains = [_paper("table1", row)["sgd-ph"] - _paper("table1", row)["sgdm"] for row in rows]
    assert (min(gains), max(gains)) == pytest.approx((0.76, 2.93))
    # "SGD-PH achieves the best results of all DNN models on CIFAR100"
    assert all(max(_paper("table1", row), key=_paper("table1", row).__getitem__) == "sgd-ph" for row in rows)


def test_gains_on_mini_imagenet_are_those_of_the_text() -> None:
    # "outperforms other compared methods by ... 2.47% and 1.92%"
    for row, gain in (("resnet18", 2.47), ("resnet50", 1.92)):
        paper = _paper("table2", row)
        assert paper["sgd-ph"] - max(paper[other] for other in OTHERS) == pytest.approx(gain)


def test_gain_on_imagenet_and_ablations_are_those_of_the_text() -> None:
    imagenet = _paper("table3", "resnet18")
    assert imagenet["sgd-ph"] - imagenet["sgdm"] == pytest.approx(0.1)
    # "fluctuations of no more than 0.77%", "a maximum fluctuation of 0.17%", "the best ... at batch size 32"
    for name, spread in (("table5", 0.77), ("table7", 0.17)):
        values = _paper(name, "resnet18").values()
        assert max(values) - min(values) == pytest.approx(spread)
    batches = _paper("table8", "resnet18")
    assert max(batches, key=batches.__getitem__) == "batch32"


def test_cells_that_the_paper_ran_once_have_the_same_settings_and_number() -> None:
    # Tables 5 to 8 repeat a cell of Table 1, by the paper's own words with its settings.
    (first,) = [c for c in read_recipe("table1").cells if c.name == "cifar100-resnet18/sgd-ph"]
    for name, column in (("table5", "lr0_01-wd0_005"), ("table8", "batch128")):
        again = read_recipe(name).cell("resnet18", column)
        assert (again.config, again.paper, again.data) == (first.config, first.paper, first.data)


def test_table_6_names_the_second_order_rate_and_table_7_the_momentum() -> None:
    for cell in read_recipe("table6").cells:
        assert f"tau{cell.config.options['second_order_lr']:.6f}".rstrip("0") == cell.column.replace("_", ".")
    assert [cell.config.options for cell in read_recipe("table7").cells] == [
        {"hessian_momentum": alpha} for alpha in (0.8, 0.9, 0.99)
    ]


def test_figures_draw_the_runs_of_their_tables() -> None:
    for figure, table in (("figure3", "table1"), ("figure4", "table2"), ("figure5", "table4")):
        drawn, run = read_recipe(figure).cells, read_recipe(table).cells
        assert drawn
        assert all(cell in run for cell in drawn)
    assert [cell.config.network for cell in read_recipe("figure5").cells] == ["vgg19"] * 3


@pytest.mark.parametrize(("name", "trials"), [("cpu", 6), ("controls", 12), ("controls-pinn", 12)])
def test_every_method_has_the_same_number_of_trials(name: str, trials: int) -> None:
    experiment = read_recipe(name)
    searched = [cell for cell in experiment.cells if not cell.tuned_as]
    assert {len({tuple(point.items()) for point in cell.grid}) for cell in searched} == {trials}
    assert experiment.tuning is not None
    assert experiment.tuning.seed >= experiment.seeds


def test_sgdm_and_sgd_ph_have_the_same_grid_in_the_cpu_recipe() -> None:
    experiment = read_recipe("cpu")
    for row in experiment.rows:
        sgdm, ones, signs = (experiment.cell(row, c) for c in ("sgdm", "sgd-ph", "sgd-ph-rademacher"))
        assert sgdm.grid == ones.grid == signs.grid


def test_priorities_run_what_is_compared_first() -> None:
    order = sorted(read_recipe("cpu").cells, key=lambda cell: cell.priority)
    assert {cell.column for cell in order[:6]} == {"sgdm", "sgd-ph", "sgd-ph-rademacher"}


def test_a_setting_that_no_run_knows_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "typo.toml").write_text(
        'title = "t"\nsource = "s"\nseeds = 1\n[base]\nnetwork = "vgg11"\nepochs = 1\ndataset = "cifar10"\n'
        'lerning_rate = 0.1\n[[rows]]\nkey = "r"\n[[columns]]\nkey = "c"\nmethod = "sgdm"\n'
    )
    monkeypatch.setattr("experiments.running.recipe_files.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"r/c has \['lerning_rate'\]"):
        read_recipe("typo")
