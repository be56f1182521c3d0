"""The page of messages is what the code says, and the code says each of them where it should."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from sgdph_fx.errors import SgdphError
from sgdph_fx.plan.hint_codes import HINTS
from tests.torch_versions import TELLS
from tests.triggers import TRIGGERS

ROOT = Path(__file__).parents[1]


def _documents() -> ModuleType:
    spec = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DOCUMENTS = _documents()
# These take several processes, and are raised in tests/distributed.
OF_SHARDS = "sgdph_fx/optim/processes/shards.py"
LIBRARY = [m for m in DOCUMENTS.messages() if m.where.startswith("sgdph_fx/") and m.where != OF_SHARDS]


def test_the_page_is_up_to_date() -> None:
    assert DOCUMENTS.PAGE.read_text(encoding="utf-8") == DOCUMENTS.page(), "run `python docs/messages.py`"


def test_every_message_of_the_library_is_raised() -> None:
    raised = []
    for trigger in TRIGGERS:
        with pytest.raises(SgdphError) as caught:
            trigger()
        raised.append((type(caught.value).__name__, " ".join(str(caught.value).split())))
    patterns = {m: re.compile(re.escape(m.text).replace("…", ".*"), re.DOTALL) for m in LIBRARY}
    missing = [
        f"{m.error}: {m.text}"
        for m, pattern in patterns.items()
        if (TELLS or "selective activation checkpoint" not in m.text)
        and not any(name == m.error and pattern.fullmatch(text) for name, text in raised)
    ]
    assert missing == []


def test_every_message_says_more_than_a_word() -> None:
    assert [m for m in LIBRARY if len(m.text.replace("…", "").split()) < 3] == []


def test_every_hint_that_is_given_is_explained_and_the_other_way_round() -> None:
    given = set()
    for path in (ROOT / "sgdph_fx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Hint" and node.args:
                given.add(ast.literal_eval(node.args[0]))
    assert given == set(HINTS)
