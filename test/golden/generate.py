#!/usr/bin/python3
"""Makes every golden file of this folder; see README.md.

Usage: /usr/bin/python3 test/golden/generate.py [part ...]
"""

import os
import sys

import torch

import make_attention
import make_models
import make_optimizers
import make_stories
import make_train_curve

PARTS = {
    "models": make_models.make,
    "stories260K": make_stories.make,
    "optimizers": make_optimizers.make,
    "attention": make_attention.make,
    "train_curve": make_train_curve.make,
}


def main():
    """Makes the parts named on the command line, or all of them."""
    names = sys.argv[1:] or list(PARTS)
    for name in names:
        if name not in PARTS:
            raise SystemExit(f"no part {name!r}; parts: {', '.join(PARTS)}")
    torch.set_num_threads(1)  # one order of every sum
    root = os.path.dirname(os.path.abspath(__file__))
    for name in names:
        PARTS[name](root)


if __name__ == "__main__":
    main()
