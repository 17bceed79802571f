"""Amounts as Kubernetes writes them."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|[MGTP]i?)?")
_FACTORS = {"m": 0.001, "k": 1e3, **{unit: 1000.0**power for power, unit in enumerate("KMGTP", 1)}}
_FACTORS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTP", 1)}


def amount_of(quantity: str) -> float:
    """Return the number that a quantity stands for; of memory, the bytes.

    :param quantity: such as ``4Gi``, ``500m`` or ``2``.
    :raises ValueError: for anything else.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f'must be a Kubernetes quantity such as "500m", "2" or "4Gi"; got {quantity!r}')
    return float(match[1]) * _FACTORS.get(match[2] or "", 1.0)
