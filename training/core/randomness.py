"""Every random draw derives from (seed, purpose, parts): never from a rank, a batch or what was drawn before."""

import hashlib

import torch


def derive_seed(seed: int, purpose: str, *parts: int) -> int:
    """A 63-bit seed that depends on its arguments alone, the same on every machine."""
    name = "/".join([str(seed), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, purpose: str, *parts: int) -> torch.Generator:
    """A fresh CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *parts))


def permutation(count: int, seed: int, *parts: int) -> list[int]:
    """The order of ``count`` samples in one pass; needs no state, so that a resume finds it again."""
    order: list[int] = torch.randperm(count, generator=generator_for(seed, "permutation", *parts)).tolist()
    return order
