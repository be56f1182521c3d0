"""Finding the model. Needs no tracing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from sgdph_fx.cli.errors import ModelNotLoadedError
from sgdph_fx.cli.load import load_model

Write = Callable[..., Path]

HEAD = "from torch import nn\nfrom torch.nn import Conv2d\n"
NARROW = "class Narrow(nn.Linear):\n    def __init__(self, width=2):\n        super().__init__(width, 1)\n"
NEEDS = "class Needs(nn.Linear):\n    def __init__(self, width):\n        super().__init__(width, 1)\n"


def refused(target: str | Path) -> str:
    with pytest.raises(ModelNotLoadedError) as caught:
        load_model(str(target))
    assert caught.value.exit_code == 3
    return str(caught.value.message)


@pytest.mark.parametrize(
    "source",
    [
        "model = nn.Linear(5, 1)",
        NARROW.replace("width=2", "width=5"),
        NEEDS + "def build():\n    return Needs(5)",
        NEEDS + "def build(width: int = 5) -> nn.Module:\n    return Needs(width)",
        NEEDS + "net = also = Needs(5)",
        NEEDS + "def main() -> None:\n    raise SystemExit\ndef build():\n    return Needs(5)",
        NEEDS + "def train():\n    def inner():\n        return 1\n    raise SystemExit\nnet = Needs(5)",
        NEEDS + "def width() -> int:\n    return 5\nnet = Needs(width())",
        NEEDS + "def _draft():\n    return Needs(1)\nnet = Needs(5)",
    ],
    ids=["object", "class", "function", "annotated", "two names", "main", "inner", "int", "private"],
)
def test_the_only_model_of_a_file_is_found_whatever_else_is_there(source: str, write: Write) -> None:
    model = load_model(str(write(HEAD + source)))
    assert isinstance(model, nn.Linear)
    assert model.in_features == 5


def test_what_a_file_imports_is_not_its_model(write: Write) -> None:
    write(HEAD + "net = nn.Linear(1, 1)", "zoo.py")
    message = refused(write("from zoo import net\nfrom torch.nn import Identity\n", "user.py"))
    assert "user.py defines no model" in message


def test_a_name_picks_anything_imported_ones_included(write: Write) -> None:
    write(HEAD + "net = nn.Linear(7, 1)", "garden.py")
    path = write("from garden import net\nfrom torch.nn import Identity\n", "user.py")
    assert load_model(f"{path}:net").in_features == 7
    assert isinstance(load_model(f"{path}:Identity"), nn.Identity)


def test_a_dotted_name_reaches_inside(write: Write) -> None:
    path = write(HEAD + "class Zoo:\n    @staticmethod\n    def net():\n        return nn.Linear(6, 1)\n")
    assert load_model(f"{path}:Zoo.net").in_features == 6


def test_several_models_are_listed_with_how_to_pick(write: Write) -> None:
    path = write(HEAD + NARROW + NEEDS + "def build():\n    return Narrow()\nnet = nn.Linear(2, 1)\n")
    message = refused(path)
    choices = f"{path}:Narrow (class), {path}:build (function), {path}:net (object)"
    assert message == f"{path} defines several models; pick one: {choices}."


def test_a_model_stands_for_what_it_is_made_of(write: Write) -> None:
    classes = "class Part(nn.ReLU):\n    pass\nclass Net(nn.Sequential):\n    pass\n"
    path = write(HEAD + classes + "part = Part()\nmodel = Net(Conv2d(3, 4, 1), part)")
    assert type(load_model(str(path))).__name__ == "Net"


def test_a_class_of_nothing_in_the_model_may_be_meant_as_well(write: Write) -> None:
    path = write(HEAD + NARROW + "model = nn.Sequential(nn.ReLU())")
    assert f"pick one: {path}:Narrow (class), {path}:model (object)." in refused(path)


def test_nothing_is_called_before_it_is_chosen(write: Write, tmp_path: Path) -> None:
    source = "def {}():\n    open('called', 'w')\n    return 1\n"
    assert "several" in refused(write(source.format("one") + source.format("two")))
    assert not (tmp_path / "called").exists()


def test_a_class_that_needs_arguments_is_named(write: Write) -> None:
    path = write(HEAD + NEEDS)
    example = f"For example: sgdph-convert {path}:Needs --arg width=VALUE"
    message = refused(path)
    assert "defines no model that is made without arguments: Needs (class) needs width." in message
    assert example in message
    assert f"needs arguments (width). {example}" in refused(f"{path}:Needs")


@pytest.mark.parametrize(
    ("source", "pick", "message"),
    [
        ("raise KeyError('weights')", "", "net.py failed: KeyError: 'weights'"),
        ("import sys\nsys.exit(0)", "", "net.py failed: SystemExit: 0. Its code ends the program"),
        ("def broken(:", "", "net.py failed: SyntaxError"),
        ("def net():\n    raise OSError('no disk')", ":net", "net failed: OSError: no disk"),
        ("def net():\n    return 4", ":net", "net returned a int, no nn.Module"),
        ("net = 4", ":net", "net is a int, neither a model nor something that makes one"),
        ("def nett():\n    return 4", ":net", "there is no 'net'. The nearest name is nett."),
        ("def other():\n    return 4", ":net", "there is no 'net'. Models there: other (function)"),
    ],
)
def test_failures_say_what_failed(source: str, pick: str, message: str, write: Write) -> None:
    assert message in refused(f"{write(source)}{pick}")


def test_a_missing_file_and_a_missing_module_are_told_apart(write: Write, tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.py") == f"There is no file {tmp_path / 'nowhere.py'}."
    assert "There is no module no_such_module: no no_such_module.py in this folder" in refused(
        "no_such_module.inner:x"
    )
    assert "neither a file nor the name of a module" in refused("no-such-module")


def test_a_folder_and_an_open_call_are_told_from_a_missing_module(write: Write, tmp_path: Path) -> None:
    assert (
        refused(f"{tmp_path}/")
        == f"{tmp_path}/ is a folder. Name the file in it that makes the model, or its module."
    )
    assert "A call ends with a parenthesis" in refused(f"{write(HEAD)}:build(3")


@pytest.mark.parametrize("text", ["timm", "torchvision", "hf", "hf:"])
def test_a_collection_alone_asks_for_a_name(text: str, write: Write) -> None:
    assert f"{text.strip(':')} is a collection of models; name one of them: " in refused(text)
    path = write(HEAD + "net = nn.Linear(3, 1)", "hf.py")
    assert load_model(path.stem).in_features == 3


def test_a_notebook_is_refused_with_what_makes_a_file_of_it(write: Write) -> None:
    assert "nets.ipynb is a notebook: jupyter nbconvert --to script" in refused(write("{}", "nets.ipynb"))


def test_what_only_a_script_does_is_named_where_nothing_else_is(write: Write) -> None:
    guard = 'if __name__ == "__main__":\n    net = nn.Linear(1, 1)\n'
    assert refused(write(HEAD + guard)).endswith('Nothing under `if __name__ == "__main__":` runs.')
    assert "__main__" not in refused(write(HEAD, "empty.py"))


def test_a_script_sees_its_own_command_line(write: Write) -> None:
    source = "import argparse, sys\nparser = argparse.ArgumentParser()\nparser.add_argument('--width', default=5)\n"
    path = write(HEAD + source + "net = nn.Linear(parser.parse_args().width, 1)\nseen = sys.argv\n")
    before = [*sys.argv]
    assert load_model(f"{path}:net").in_features == 5
    assert sys.modules["net"].seen == [str(path)]
    assert sys.argv == before


def test_a_script_that_needs_arguments_says_what_to_do(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('width')\nparser.parse_args()\n"
    message = refused(write(source, "train.py"))
    assert 'put it under `if __name__ == "__main__":`' in message
    assert "train.py: error: the following arguments are required: width" in capsys.readouterr().err


def test_a_relative_import_outside_a_package_says_how_to_make_one(write: Write, tmp_path: Path) -> None:
    write("WIDTH = 4\n", "loose/sizes.py")
    path = write(HEAD + "from .sizes import WIDTH\nnet = nn.Linear(WIDTH, 1)", "loose/nets.py")
    message = refused(path)
    assert f"Add an __init__.py to {path.parent}, or name it as a module" in message
    assert load_model(message.split()[-1].rstrip(".")).in_features == 4


def test_the_only_model_of_a_file_is_called_by_its_name_when_it_fails(write: Write) -> None:
    path = write("def build(width: int = 2):\n    open('no/such/file')\n    return 1")
    assert f"Calling {path}:build failed" in refused(path)
    with pytest.raises(ModelNotLoadedError, match=r"net\.py:build takes \(width: int = 2\)"):
        load_model(str(path), {"depth": 3})


def test_a_module_that_a_module_lacks_is_not_taken_for_it(write: Write) -> None:
    write("import no_such_module\n", "lacking.py")
    message = refused("lacking")
    assert message.startswith(
        "Importing the module lacking failed: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_the_main_guard_stays_shut_and_neighbours_can_be_imported(write: Write) -> None:
    write("WIDTH = 9\n", "neighbour_of_net.py")
    source = "from neighbour_of_net import WIDTH\nnet = nn.Linear(WIDTH, 1)\n"
    guard = "if __name__ == '__main__':\n    1 / 0\n"
    assert load_model(str(write(HEAD + source + guard, "my-net.py"))).in_features == 9


def test_a_file_may_have_the_name_of_an_imported_module(write: Write) -> None:
    import json

    assert load_model(str(write(HEAD + "net = nn.Linear(8, 1)", "json.py"))).in_features == 8
    assert sys.modules["json"] is json


def test_relative_imports_work_inside_a_package(write: Write) -> None:
    write("", "parcel/__init__.py")
    write("WIDTH = 4\n", "parcel/sizes.py")
    path = write(HEAD + "from .sizes import WIDTH\nnet = nn.Linear(WIDTH, 1)", "parcel/nets.py")
    assert load_model(str(path)).in_features == 4


def test_dataclasses_find_their_module(write: Write) -> None:
    source = (
        "from dataclasses import dataclass\nimport typing\n@dataclass\nclass Size:\n    width: 'int' = 3\n"
    )
    assert load_model(str(write(HEAD + source + "net = nn.Linear(Size().width, 1)"))).in_features == 3


def test_an_importable_needs_no_file_and_is_found_in_the_current_folder(write: Write) -> None:
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)
    write(HEAD + "net = nn.Linear(2, 1)", "in_this_folder.py")
    assert load_model("in_this_folder:net").in_features == 2
    assert load_model("in_this_folder").in_features == 2


def test_torchvision_names_a_model_by_its_function() -> None:
    assert type(load_model("torchvision.models:squeezenet1_1")).__name__ == "SqueezeNet"


def test_an_absent_package_is_named_with_what_to_do(write: Write) -> None:
    path = write("import no_such_package.part\n")
    assert "Install no_such_package where sgdph-convert is, or put its folder on PYTHONPATH" in refused(path)
