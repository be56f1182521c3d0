"""The code of a step: which functions and modules take part, and what they read from outside of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from sgdph_fx.optim.capture.called_code import (
    followed,
    forward_of,
    hooks_of,
    is_yours,
    members_of,
    outside,
)
from sgdph_fx.optim.capture.code_words import Words, joined, words_of
from sgdph_fx.optim.capture.reached_values import Found, elements, parts_in, reach
from sgdph_fx.optim.capture.seen_values import PLAIN
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["Part", "StepCode"]

_NO_WORDS = joined(())
_OF_TORCH = frozenset(nn.Module().__dict__)


class Part(NamedTuple):
    """Functions, the object that they are methods of, and what they read."""

    functions: Sequence[FunctionType]
    owner: Any
    words: Words
    found: Sequence[Found]
    is_tried: bool = True
    """Whether a dry run runs it."""


class StepCode:
    """What runs in a step, each function and object once.

    Functions that are called are followed, also through methods, partial functions, objects with a ``__call__``,
    methods and properties of objects whose class is yours, files that you import, and lists of these.

    Args:
        roots: The model, and the loss function.
        untried: Functions that no dry run runs, as ``before_step``.
    """

    def __init__(self, roots: Iterable[object], untried: Iterable[object] = ()) -> None:
        self.parts: list[Part] = []
        self._waiting: list[tuple[Sequence[FunctionType], Any]] = []
        self._is_tried = True
        self._words_of: dict[int, Words] = {}
        self._kept: set[int] = set()
        self._known: dict[Any, Any] = {}
        self._modules: dict[nn.Module, None] = {}
        self._tensors: dict[Tensor, None] = {}
        self._optimizers: dict[Optimizer, None] = {}
        for root in untried:
            self._enter(root, is_tried=False)
        for root in roots:
            self._enter(root, is_tried=True)
        looked_at = 0
        while looked_at < len(self._modules):
            for module in list(self._modules)[looked_at:]:
                looked_at += 1
                self._look_at(module)

    @property
    def modules(self) -> list[nn.Module]:
        """All modules among the roots and what functions and modules read, each once, the roots' own first."""
        return list(self._modules)

    @property
    def optimizers(self) -> list[Optimizer]:
        """Other optimizers that step inside."""
        return list(self._optimizers)

    @property
    def leaves(self) -> list[Tensor]:
        """Tensors in no module that get a gradient, or that another optimizer has."""
        held = (p for o in self._optimizers for group in o.param_groups for p in group["params"])
        return list(dict.fromkeys((*self._tensors, *held)))

    @property
    def names(self) -> Words:
        """All names that the code reads."""
        return joined(part.words for part in self.parts)

    @property
    def codes(self) -> tuple[CodeType, ...]:
        """The code of all functions, which `%autoreload` exchanges in place."""
        return tuple(function.__code__ for part in self.parts for function in part.functions)

    def _add_module(self, module: nn.Module) -> None:
        if module not in self._modules:
            self._modules.update(dict.fromkeys(module.modules()))

    def _look_at(self, module: nn.Module) -> None:
        functions = forward_of(type(module))
        if functions:
            self._waiting.append((functions, module))
        if "forward" in module.__dict__:
            self._call(module.__dict__["forward"])
        self._follow()
        for hook in hooks_of((module,)):
            self._enter(hook, is_tried=False)  # some run in the backward pass alone

    def _enter(self, root: Any, *, is_tried: bool) -> None:
        """Read what runs where ``root`` is called."""
        self._is_tried = is_tried
        self._call(root)
        self._follow()
        self._is_tried = True

    def _call(self, function: Any) -> None:
        """A function or object that is called."""
        if isinstance(function, nn.Module):
            self._add_module(function)
        elif ("called", id(function)) not in self._known:
            self._known["called", id(function)] = function
            if isinstance(function, partial):
                self._keep(
                    Part((), None, _NO_WORDS, list(reach("partial", function, _NO_WORDS)), self._is_tried)
                )
                self._call(function.func)
            else:
                self._waiting.append(_functions_of(function))

    def _follow(self) -> None:
        while self._waiting:
            self._read(*self._waiting.pop())

    def _read(self, functions: Sequence[FunctionType], owner: Any) -> None:
        if isinstance(owner, nn.Module):
            self._add_module(owner)
            self._read_of_module(functions, owner)
            return
        words = words_of(functions)
        pairs = [*self._of_owner(owner, words)]
        if not all(id(function) in self._known for function in functions):
            pairs += outside(functions, words)
        self._known |= {id(function): function for function in functions}
        found = [f for name, value in pairs for f in reach(name, value, words)]
        self._keep(Part(functions, owner, words, found, self._is_tried))

    def _read_of_module(self, functions: Sequence[FunctionType], module: nn.Module) -> None:
        """Likewise; what the code reads from outside is read once for all modules of a class."""
        found: list[Found] = []
        words = self._words_of.get(id(functions))
        if words is None:
            words = self._words_of[id(functions)] = words_of(functions)
            self._known |= {id(function): function for function in functions}
            pairs = (*outside(functions, words), *self._of_class(type(module), words))
            found += [f for name, value in pairs for f in reach(name, value, words)]
        own = module.__dict__
        # For their code; the values that modules hold are told apart.
        for key in words.attributes & own.keys() - _OF_TORCH:
            value, looked_at = own[key], (id(functions), id(own[key]))  # modules share their settings
            if type(value) not in PLAIN and looked_at not in self._known:
                self._known[looked_at] = value
                found += [f._replace(is_last=False) for f in reach(key, value, words)]
        if found or id(functions) not in self._kept:
            self._kept.add(id(functions))
            self._keep(Part(functions, module, words, found, self._is_tried))

    def _keep(self, part: Part) -> None:
        self.parts.append(part)
        for one in part.found:
            if type(one.held) in PLAIN:
                continue
            for value in (one.held, *elements(one.held)):
                self._take(value, part.words)

    def _take(self, value: Any, words: Words) -> None:
        """What the value may add to the step: code, modules, tensors that are trained."""
        if isinstance(value, Tensor):
            if value.requires_grad and value.is_leaf:
                self._tensors[value] = None
        elif isinstance(value, nn.Module):
            self._add_module(value)
        elif isinstance(value, Optimizer):
            if not isinstance(value, SGDPH):
                self._optimizers[value] = None
        elif is_yours(value):
            self._call(value)
        if not isinstance(value, (Tensor, nn.Module)):
            new = [f for f in members_of(value, words) if (id(f), id(value)) not in self._known]
            if new:
                self._known |= {(id(f), id(value)): value for f in new}
                self._waiting.append((new, value))

    def _of_owner(self, owner: Any, words: Words) -> Iterator[tuple[str, Any]]:
        if owner is None or isinstance(owner, ModuleType):
            return
        yield "self", owner
        yield from self._of_class(owner if isinstance(owner, type) else type(owner), words)

    def _of_class(self, kind: type, words: Words) -> Iterator[tuple[str, Any]]:
        """What a class and its ancestors hold for all of their objects; once for each class and such words."""
        if (kind, words) not in self._known:
            self._known[kind, words] = kind
            yield from ((f"{kind.__name__}.{key}", v) for key, v in parts_in(kind, words).items())


def _functions_of(called: Any) -> tuple[list[FunctionType], Any]:
    """The functions that run where an object is called, and the object that they are methods of."""
    if isinstance(called, FunctionType):
        return followed(called, None), None
    if type(called).__module__ == "functools":  # what functools.cache has made
        return followed(getattr(called, "__wrapped__", None), None), None
    owner = getattr(called, "__self__", called)
    method = getattr(called, "__func__", getattr(type(called), "__call__", None))  # noqa: B004
    return followed(method, owner if isinstance(owner, type) else type(owner)), owner
