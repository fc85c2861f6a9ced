"""Reads and writes the safetensors format, so that no library is needed.

A file is: 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}}, then the tensors' bytes.
https://huggingface.co/docs/safetensors
"""

import json
import struct

import numpy
import torch

_NUMPY_TYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


def save(path, tensors, metadata=None):
    """Writes `tensors` {name: torch tensor} as float32 (integers as int32)."""
    header = {}
    if metadata is not None:
        header["__metadata__"] = metadata
    chunks = []
    offset = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        dtype = "F32" if tensor.dtype.is_floating_point else "I32"
        data = tensor.numpy().astype(_NUMPY_TYPES[dtype]).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts 8-byte aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for data in chunks:
            file.write(data)


def load(path):
    """Reads every tensor of a file as {name: torch tensor}."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = numpy.frombuffer(
            data[begin:end], dtype=_NUMPY_TYPES[entry["dtype"]]
        )
        tensors[name] = torch.from_numpy(array.reshape(entry["shape"]).copy())
    return tensors
