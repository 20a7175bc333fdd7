"""A notebook-first, reproducible study of SARCLIP, a vision-language foundation model for SAR images."""
__version__ = "0.1.0"

from .core import compat    # `import sarclip, open_clip` works beside a CPU-only torch too
