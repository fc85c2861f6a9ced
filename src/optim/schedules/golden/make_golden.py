"""Writes deepspeed.json: the rates and momenta that DeepSpeed's own schedulers give before each update.

    python3 make_golden.py path/to/DeepSpeed/deepspeed/runtime/lr_schedules.py > deepspeed.json

Only that one file of DeepSpeed is run; the two imports that it needs are replaced by empty stand-ins.
"""

import importlib.util
import json
import logging
import sys
import types


class Optimizer:
    def __init__(self, lr):
        self.param_groups = [{"lr": lr, "betas": (0.9, 0.999)}]
        self.defaults = {"betas": (0.9, 0.999)}


logger = logging.getLogger("deepspeed")
logger.disabled = True
sys.modules["torch"] = types.ModuleType("torch")
sys.modules["torch.optim"] = types.ModuleType("torch.optim")
sys.modules["torch.optim"].Optimizer = Optimizer
sys.modules["deepspeed"] = types.ModuleType("deepspeed")
sys.modules["deepspeed.utils"] = types.ModuleType("deepspeed.utils")
sys.modules["deepspeed.utils"].logger = logger

spec = importlib.util.spec_from_file_location("lr_schedules", sys.argv[1])
schedules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schedules)

CASES = [
    ("WarmupLR", dict(warmup_min_lr=1e-5, warmup_max_lr=3e-4, warmup_num_steps=10), 16),
    ("WarmupLR", dict(warmup_max_lr=0.01, warmup_num_steps=7, warmup_type="linear"), 12),
    ("WarmupLR", dict(warmup_num_steps=0), 5),
    ("WarmupDecayLR", dict(total_num_steps=20, warmup_min_lr=1e-5, warmup_max_lr=1e-3, warmup_num_steps=5), 26),
    ("WarmupDecayLR", dict(total_num_steps=15, warmup_num_steps=4, warmup_type="linear"), 18),
    ("WarmupCosineLR", dict(total_num_steps=20, warmup_num_steps=5, warmup_min_ratio=0.1, cos_min_ratio=0.05), 26),
    ("WarmupCosineLR", dict(total_num_steps=12, warmup_num_steps=3, warmup_type="linear"), 13),
    ("OneCycle", dict(cycle_min_lr=1e-4, cycle_max_lr=1e-3, cycle_first_step_size=8, cycle_second_step_size=12,
                      decay_step_size=5, decay_lr_rate=0.5, decay_mom_rate=0.1, cycle_min_mom=0.85,
                      cycle_max_mom=0.99), 40),
    ("OneCycle", dict(cycle_min_lr=0.01, cycle_max_lr=0.1, cycle_first_step_size=6), 16),
    ("LRRangeTest", dict(lr_range_test_min_lr=1e-4, lr_range_test_step_size=5, lr_range_test_step_rate=2.0), 20),
    ("LRRangeTest", dict(lr_range_test_min_lr=1e-4, lr_range_test_step_size=5, lr_range_test_step_rate=2.0,
                         lr_range_test_staircase=True), 20),
]
BASE_LEARNING_RATE = 6e-4

golden = []
for name, params, steps in CASES:
    optimizer = Optimizer(BASE_LEARNING_RATE)
    scheduler = getattr(schedules, name)(optimizer, **params)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["betas"][0])
        scheduler.step()
    case = dict(type=name, params=params, learningRates=rates)
    if name == "OneCycle":
        case["momenta"] = momenta
    golden.append(case)
print(json.dumps(dict(baseLearningRate=BASE_LEARNING_RATE, cases=golden), indent=1))
