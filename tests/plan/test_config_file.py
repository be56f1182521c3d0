"""Configuration files: where they are found, what they say, and the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgdph_fx import Config
from sgdph_fx.errors import ConfigError

WHOLE = """policy = "absorbing"
silence = [
  "classifier-bias",
]

[rules]
layer4 = "keep"
"re:blocks\\\\.[0-9]+" = "first-order"

[rules."type:LayerNorm"]
action = "second-order"
weight_decay = 0.0
betas = [0.9, 0.99]
"""
MEANT = Config(
    "absorbing",
    {
        "layer4": "keep",
        r"re:blocks\.[0-9]+": "first-order",
        "type:LayerNorm": {"action": "second-order", "weight_decay": 0.0, "betas": [0.9, 0.99]},
    },
    ["classifier-bias"],
)


def test_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sgdph.toml").write_text(WHOLE)
    assert Config.from_file(tmp_path / "sgdph.toml") == MEANT
    assert list(MEANT.rules) == [override.pattern for override in MEANT.overrides]


def test_a_table_in_pyproject(tmp_path: Path) -> None:
    inside = WHOLE.replace("[rules", "[tool.sgdph.rules")
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'x'\n\n[tool.sgdph]\n{inside}")
    assert Config.from_file(tmp_path / "pyproject.toml") == MEANT
    assert Config.load(tmp_path) == MEANT


@pytest.mark.parametrize(
    "text",
    [
        '[ tool.sgdph ]\npolicy = "direct"',
        '[tool."sgdph"]\npolicy = "direct"',
        '[tool]\nsgdph = {policy = "direct"}',
        'tool.sgdph.policy = "direct"',
        '[tool]\nsgdph.policy = "direct"',
    ],
)
def test_toml_has_many_spellings_of_a_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert Config.load(tmp_path).policy == Config.from_file(tmp_path / "pyproject.toml").policy == "direct"


@pytest.mark.parametrize(
    "text", ["", "tool = 3", "[tool.other]\npolicy = 'direct'", 'n = """\n[tool.sgdph]\n"""']
)
def test_a_file_that_is_named_must_have_the_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert Config.load(tmp_path) == Config()
    with pytest.raises(ConfigError, match=r"pyproject\.toml: there is no table \[tool\.sgdph\]"):
        Config.from_file(tmp_path / "pyproject.toml")


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert Config.load(inner) == Config()
    (tmp_path / "pyproject.toml").write_text("[tool.sgdph]\npolicy = 'direct'\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'without a table of ours'\n")
    assert Config.load(inner).policy == "direct"
    (tmp_path / "a" / "sgdph.toml").write_text("policy = 'absorbing'\n")
    assert Config.load(inner).policy == "absorbing"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("policy = 'see-through'\npolicy = 3", None, "is no TOML"),
        ("silence = []\n\npolicy = 'strict'\n", 3, "policy='strict' is not known"),
        (
            "# a comment\npolice = 'direct'\n",
            2,
            "'police' is not known; the keys are policy, rules, silence.",
        ),
        ("[rules]\nstem = 'keep'\nhead = 'drop'\n", 3, "rules['head']='drop' is not known"),
        ("[rules]\nstem = 'keep'\n\n[rules.'re:[']\nlr = 1\n", 4, "is no regular expression"),
        ("rules.stem = 'keep'\nrules.head = {lr = nan}\n", 2, "an option is a finite number"),
        ("rules = 3\n", 1, "rules is no table"),
        ("silence = [\n  'absorbed-bias',\n  'absorbed',\n]\n", 1, "silence names 'absorbed'"),
        ("silence = 'absorbed-bias'\n", 1, "silence is 'absorbed-bias'; pass a list"),
        ("policy = 'direct'\nsilence = 3\n", 2, "silence is 3; pass a list of codes"),
    ],
)
def test_what_is_wrong_has_its_line(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    file = tmp_path / "sgdph.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        Config.from_file(file)
    assert message in str(error.value)
    assert str(error.value).startswith(
        f"Configuration file {file}:{line}: " if line else f"Configuration file {file} is no TOML: "
    )


def test_lines_of_pyproject_are_those_of_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname = 'x'\n[tool.sgdph.rules]\n'a.*' = 'keep'\n'b' = 'dorp'\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml:5: rules\['b'\]='dorp'"):
        Config.from_file(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sgdph\.toml cannot be read"):
        Config.from_file(tmp_path / "sgdph.toml")
