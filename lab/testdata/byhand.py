"""The loop that a person would write to time a model: byhand.py RUNNER MODEL ITERATIONS

RUNNER is the directory of labmesh's runner, for the definition of the same
model; nothing else of it is used. Prints the median of the wall times and the
mean CPU time of an iteration, in milliseconds.
"""

import json
import statistics
import sys
import time

sys.path.insert(0, sys.argv[1])
import torch
from labmesh_bench import torch_models

torch.set_num_threads(1)
torch.manual_seed(0)
model = torch_models.make(sys.argv[2], torch_models.describe(sys.argv[2], 0, 0)).eval()
x = torch.randn(1, 3, 224, 224)
times = []
with torch.inference_mode():
    for _ in range(10):
        model(x)
    cpu = time.process_time()
    for _ in range(int(sys.argv[3])):
        began = time.perf_counter()
        y = model(x)
        times.append((time.perf_counter() - began) * 1e3)
    cpu = time.process_time() - cpu
print(json.dumps({"p50": statistics.median(times), "min": min(times), "cpu": cpu * 1e3 / len(times)}))
