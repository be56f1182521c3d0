"""Models of collections by their names there: ``timm:resnet18``, ``torchvision:vgg11``, ``hf:PATH-OR-CONFIG``.

None of them gets weights from a network: those are random, or come from ``--weights``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ModelNotLoadedError
from .target import COLLECTIONS, Target

__all__ = ["factory_in_collection"]

Factory = Callable[..., Any]

PACKAGES = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers"}
EXAMPLES = {"timm": "timm:resnet18", "torchvision": "torchvision:vgg11", "hf": "hf:resnet"}


def factory_in_collection(target: Target) -> Factory | None:
    """What makes the model that ``target`` names in a collection; None if it names something else.

    ``timm:create_model`` is something else: a function of the module timm, not one of its models.

    Raises:
        ModelNotLoadedError: if the collection is not installed, or has nothing of that name, or if there is no name.
    """
    alone = target.place.removesuffix(":")
    if target.name is None and alone in COLLECTIONS and not Path(f"{alone}.py").exists():
        raise ModelNotLoadedError(f"{alone} is a collection of models; name one of them: {EXAMPLES[alone]}.")
    if target.place not in COLLECTIONS or target.name is None:
        return None
    package = PACKAGES[target.place]
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        raise ModelNotLoadedError(
            f"{target.text} is a model of {package}, which cannot be imported where sgdph-convert is: {error}. "
            f"Install it with `pip install {package}`."
        ) from error
    find = {"timm": _of_timm, "torchvision": _of_torchvision, "hf": _of_transformers}[target.place]
    factory = find(library, target.name)
    if factory is None and not hasattr(library, target.name):
        near = difflib.get_close_matches(target.name, _names(target.place, library))
        nearest = f" The nearest names are {', '.join(near)}." if near else ""
        raise ModelNotLoadedError(f"{package} has no model {target.name!r}.{nearest}")
    return factory


def _of_timm(timm: ModuleType, name: str) -> Factory | None:
    if not timm.is_model(name):
        return None
    return lambda *args, **kwargs: timm.create_model(name, *args, **{"pretrained": False, **kwargs})


def _of_torchvision(torchvision: ModuleType, name: str) -> Factory | None:
    if name not in torchvision.models.list_models():
        return None
    build = torchvision.models.get_model_builder(name)
    # Detectors fetch weights for their backbone unless they are told not to.
    takes = inspect.signature(build).parameters.keys() & {"weights", "weights_backbone"}
    return lambda *args, **kwargs: build(*args, **{**dict.fromkeys(takes), **kwargs})


def _of_transformers(transformers: ModuleType, name: str) -> Factory:
    def build(**kwargs: Any) -> Any:
        config = _config(transformers, name, kwargs)
        classes = [getattr(transformers, kind, None) for kind in getattr(config, "architectures", None) or ()]
        known = next((kind for kind in classes if kind is not None), None)
        return known(config) if known is not None else transformers.AutoModel.from_config(config)

    model = getattr(transformers, name, None)
    if isinstance(model, type) and hasattr(model, "config_class") and hasattr(model, "forward"):
        return lambda **kwargs: model(model.config_class(**kwargs))
    return build


def _config(transformers: ModuleType, name: str, arguments: Mapping[str, Any]) -> Any:
    """A configuration from a file or folder, a class, a kind of model, or else a name in the hub or its cache."""
    kind = getattr(transformers, name, None)
    if not Path(name).exists() and isinstance(kind, type):
        return kind(**arguments)
    if not Path(name).exists() and name in transformers.CONFIG_MAPPING:
        return transformers.AutoConfig.for_model(name, **arguments)
    return transformers.AutoConfig.from_pretrained(name, **arguments)


def _names(place: str, library: ModuleType) -> Iterable[str]:
    names: list[str] = library.list_models() if place == "timm" else library.models.list_models()
    return names
