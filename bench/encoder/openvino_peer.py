"""Worker: Hugging Face's T5EncoderModel converted to OpenVINO in memory, one protein after the other, unpadded; mean over the residues."""

import json
import sys

import numpy as np
import openvino
import torch
import transformers
from harness import serve
from transformers import T5EncoderModel


class Hidden(torch.nn.Module):
    """Ids in, the last hidden state out: no mask, nothing is padded."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids).last_hidden_state


def load(settings):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(settings["threads"])
    model = T5EncoderModel.from_pretrained(settings["model"], dtype=torch.float32).eval()
    sequences = [np.array([sequence], dtype=np.int64) for sequence in settings["sequences"]]
    with torch.inference_mode():
        graph = openvino.convert_model(
            Hidden(model), example_input=torch.tensor(sequences[0]), input=[openvino.PartialShape([1, -1])]
        )
    del model
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[settings["dtype"]],
        "INFERENCE_NUM_THREADS": settings["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()

    def work():
        return [request.infer([ids])[0][0, 1:-1].mean(0).tolist() for ids in sequences]

    return {"openvino": openvino.__version__}, work


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
