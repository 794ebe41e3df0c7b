"""Arrays of NumPy and tensors of PyTorch alike: what is written with names that both libraries have serves either."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np


def namespace(array: Any) -> ModuleType:
    """Give the library that an array is of, without importing the other one.

    Args:
        array: Of NumPy or PyTorch.

    Returns:
        The module ``numpy`` or ``torch``.

    Example:
        >>> namespace(np.zeros(3)).__name__
        'numpy'
    """
    return np if isinstance(array, (np.ndarray, np.generic)) else sys.modules["torch"]
