"""The shortest command that ends in each error of the command line; see test_cli_messages.py."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from sgdph_fx import analyze, prepare
from sgdph_fx.cli.file_set import reserved
from sgdph_fx.cli.load import load_model
from tests.cli.conftest import NET

__all__ = ["APART", "COMMANDS", "furnish"]

HEAD = "import torch\nfrom torch import nn\n\n"
SOURCES = {
    "net.py": NET,
    "other.py": NET.replace("nn.BatchNorm2d(4)", "nn.Identity()"),
    "none.py": "WIDTH = 3\n",
    "several.py": HEAD + "one, two = nn.Linear(1, 1), nn.Linear(1, 1)\n",
    "loose.py": "from .none import WIDTH\n",
    "exits.py": "exit(2)\n",
    "broken.py": "raise KeyError('weights')\n",
    "number.py": "four = 4\n\n\ndef make():\n    return four\n",
    "needs.py": HEAD
    + "class Needs(nn.Linear):\n    def __init__(self, width):\n        super().__init__(width, 1)\n",
    "odd.py": HEAD
    + "class Odd(nn.Linear):\n"
    + "    def __init__(self):\n        super().__init__(2, 2)\n        self.training = False\n\n"
    + "    def train(self, mode=True):\n        raise ZeroDivisionError('never')\n",
    "picky.py": HEAD
    + "class Picky(nn.Linear):\n"
    + "    def __init__(self):\n        super().__init__(2, 2)\n\n"
    + "    def get_extra_state(self):\n        return torch.zeros(1)\n\n"
    + "    def set_extra_state(self, state):\n        raise ValueError('not this one')\n",
    "extra.py": HEAD
    + "class Extra(nn.Linear):\n"
    + "    def __init__(self):\n        super().__init__(2, 2)\n\n"
    + "    def get_extra_state(self):\n        return 'no tensor'\n\n"
    + "    def set_extra_state(self, state):\n        pass\n",
    "branching.py": HEAD
    + "class Branching(nn.Module):\n"
    + "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 3, 1)\n\n"
    + "    def forward(self, x):\n        return self.conv(x) if x.shape[1] == int(x[0, 0, 0, 0] + 5) else x @ 1\n",
    "ends.py": HEAD
    + "class Ends(nn.Linear):\n"
    + "    def __init__(self, how=exit):\n        super().__init__(2, 2)\n        self.how = how\n\n"
    + "    def forward(self, x):\n        self.how(0)\n",
    "hard.py": "import os\n\nfrom ends import Ends\n\nmodel = Ends(os._exit)\n",
    "killed.py": "import os\n\nos.kill(os.getpid(), 9)\n",
    "two.py": HEAD
    + "class Two(nn.Module):\n"
    + "    def forward(self, *, images, times):\n        return images + times if images.sum() > 0 else times\n\n\n"
    + "two = Two()\n",
    "meta.py": HEAD + 'with torch.device("meta"):\n    model = nn.Linear(2, 2)\n',
    "lit.py": HEAD + "class Lit(nn.Linear):\n    forward = nn.Module.forward\n\n\nlit = Lit(2, 2)\n",
    "level.py": "def level(outputs, targets):\n    return outputs.sum()\n",
    "notes.txt": "Weights are in the other folder.\n",
    "empty.pt": "",
    "no.json": "{}",
}


# A writer that does not end before the tests do.
HELD = ExitStack()


def furnish(folder: Path) -> None:
    """Write into ``folder``, the current one, all files that the commands name."""
    (folder / "taken" / "report.html").mkdir(parents=True)
    (folder / "busy").mkdir()
    (folder / "without").mkdir()
    (folder / "without" / "timm.py").write_text(
        "raise ImportError('of all that it needs')\n", encoding="utf-8"
    )
    HELD.enter_context(reserved(folder / "busy", ()))
    for name, source in SOURCES.items():
        (folder / name).write_text(source, encoding="utf-8")
    net = load_model("net.py")
    (folder / "plan.json").write_text(analyze(net).to_json(), encoding="utf-8")
    turned = analyze(net).to_json().replace('"transposed": false', '"transposed": true')
    (folder / "turned.json").write_text(turned, encoding="utf-8")
    trained = prepare(net).model.state_dict()
    saved = {
        "plain.pt": net.state_dict(),
        "wider.pt": {**trained, "head.gain": torch.ones(7)},
        "extra.pt": {**trained, "_extra_state": "no tensor"},
        "epoch.pt": trained,
        "picky.pt": load_model("picky.py").state_dict(),
        "alone.pt": torch.zeros(2, 3, 6, 6),
        "numbered.pt": {0: torch.zeros(1)},
        "integers.pt": {key: value.long() for key, value in net.state_dict().items()},
        "whole.pt": nn.Linear(2, 2),
    }
    for name, content in saved.items():
        torch.save(content, folder / name)


RANDOM = "--input 2,3,6,6"
LONG = "l" * 300

COMMANDS = (
    # 1: another plan
    "other.py --check plan.json",
    # 2: usage
    "dif plan.json net.py",
    "audit net.py",
    f"audit net.py {RANDOM} --data alone.pt",
    f"audit net.py {RANDOM} --json nowhere/audit.json",
    f"audit net.py {RANDOM} --loss hinge",
    "net.py --json --markdown",
    "'net.py:Net(classes=WIDTH)'",
    "net.py --arg classes",
    "two.py --input 2,2 --input 2,2 --input images=2,2",
    "net.py --input 1x3",
    "net.py --input 1,3:float99",
    "net.py --input 1,3,9999999,9999999",
    "net.py --rule keep",
    "net.py --rule head=drop",
    "restore epoch.pt --plan plan.json --output epoch.pt",
    "net.py --output ''",
    # 3: no model
    "''",
    "no-such-module",
    "no_such_module:net",
    "nowhere.py",
    "notes.txt",
    "none.py",
    "several.py",
    "broken.py",
    "loose.py",
    "exits.py",
    "busy/",
    "needs.py",
    "several.py:one --arg width=3",
    "needs.py:Needs",
    "net.py:Net --arg width=3",
    "timm:resnte18",
    "torchvision",
    "hf:no/such/model",
    "net.py:nix",
    "number.py:four",
    "number.py:make",
    f"audit net.py {RANDOM} --loss number.py:four",
    # 4: not to be traced
    "branching.py",
    "two.py",
    "net.py --input 2,5,8,8",
    # 5: weights and batches
    "audit net.py --data empty.pt",
    "audit net.py --data alone.pt",
    "audit net.py --data whole.pt",
    "meta.py --weights plain.pt",
    "net.py --weights numbered.pt",
    "net.py --weights integers.pt",
    "net.py --weights empty.pt",
    "net.py --weights alone.pt",
    "net.py --weights whole.pt",
    "net.py --weights epoch.pt",
    "picky.py --weights picky.pt",
    "restore plain.pt --plan plan.json --output out.pt",
    "restore wider.pt --plan plan.json --output out.pt",
    "restore epoch.pt --plan turned.json --output out.pt",
    # 6: refused
    "net.py --rule haed=keep",
    "diff no.json net.py",
    "diff nowhere.json net.py",
    # 7: not written
    f"audit net.py {RANDOM} --draws 1 --channels 1 --loss level.py:level --plot audit.png",
    "meta.py --output out",
    "extra.py --output out",
    "restore extra.pt --plan plan.json --output plain.safetensors",
    "net.py --output notes.txt/below",
    "net.py --output taken",
    "net.py --output busy",
    f"restore epoch.pt --plan plan.json --output {LONG}.pt",
    # 8: ended by the model, or unexpected
    "ends.py --input 2,2",
    "audit odd.py --input 2,2",
)

# What only a process of its own can end in: $PROGRAM is the command.
APART = (
    "$PROGRAM net.py > /dev/full",
    "$PROGRAM hard.py:model --input 2,2",
    "$PROGRAM killed.py",
    "cd without && $PROGRAM timm:resnet18",
)
