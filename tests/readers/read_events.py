"""Prints what TensorBoard reads of a run's event files: {tag: [[step, value], …]} as JSON.

    read_events.py RUN
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

reader = EventAccumulator(sys.argv[1], size_guidance={"tensors": 0, "scalars": 0})
reader.Reload()
found = {tag: [[event.step, event.value] for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
for tag in reader.Tags()["tensors"]:
    found[tag] = [[event.step, float(tensor_util.make_ndarray(event.tensor_proto))] for event in reader.Tensors(tag)]
json.dump(found, sys.stdout)
