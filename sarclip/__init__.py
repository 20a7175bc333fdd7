"""A notebook-first, reproducible study of SARCLIP, a vision-language foundation model for SAR images."""
__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core import compat    # `import sarclip, open_clip` works beside a CPU-only torch too

if TYPE_CHECKING:
    from .core.problems import Problems
    from .data.pictures import View
    from .use.load import load
    from .use.model import Model

__all__ = ["Model", "Problems", "View", "load"]
_PLACES = {"Model": ".use.model", "Problems": ".core.problems", "View": ".data.pictures", "load": ".use.load"}

def __getattr__(name: str) -> Any:
    "What a user of a trained model needs, imported when it is first asked for: torch takes seconds (PEP 562)."
    if name not in _PLACES: raise AttributeError(f"module 'sarclip' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_PLACES[name], __name__), name)
    return value

def __dir__() -> list[str]: return sorted({*globals(), *__all__})
