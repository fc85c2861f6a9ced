"""stories260K/golden.json: a real trained Llama, beside the project.

The model lies in shared/data/stories260K in some folder above the project
and is not part of it. Where it is absent this part is skipped and the
golden file that is there stays.
"""

import json
import os
import pathlib

import torch

import families
import json_io
import safetensors_io

BEGINNING_OF_SEQUENCE = 1
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play "
    "outside in the park. One day, she saw a big, red ball."
)
TEXT = (
    "Tim had a small dog. The dog liked to run in the garden and chase the "
    "birds. One sunny morning, Tim's mom said, \"Let's go to the park!\" They "
    "took a ball and a big red apple. The dog was so happy that it jumped up "
    "and down."
)
PROBED_POSITIONS = (0, 1, 10, 40, 59)


def _find():
    """The model's folder, or None."""
    for parent in pathlib.Path(__file__).resolve().parents:
        folder = parent / "shared" / "data" / "stories260K"
        if (folder / "model.safetensors").exists():
            return folder
    return None


def _encode(tokenizer, text):
    """Byte-pair encoding by the merges of a tokenizer.json, with bos.

    SentencePiece style: a space is U+2581, one stands before the text; the
    merge of the lowest rank goes first, leftmost first; a character out of
    the vocabulary falls back to its bytes.
    """
    vocabulary = tokenizer["model"]["vocab"]
    ranks = {
        tuple(pair): rank
        for rank, pair in enumerate(tokenizer["model"]["merges"])
    }
    pieces = []
    for character in ("\u2581" + text.replace(" ", "\u2581")):
        if character in vocabulary:
            pieces.append(character)
        else:
            pieces += [f"<0x{byte:02X}>" for byte in character.encode()]
    while True:
        candidates = [
            (ranks[pair], index)
            for index, pair in enumerate(zip(pieces, pieces[1:]))
            if pair in ranks
        ]
        if not candidates:
            ids = [vocabulary[piece] for piece in pieces]
            return [BEGINNING_OF_SEQUENCE, *ids]
        _, index = min(candidates)
        pieces[index:index + 2] = [pieces[index] + pieces[index + 1]]


def _decode(tokenizer, ids):
    """Text of ids without the space that stands before it."""
    pieces = {index: piece for piece, index
              in tokenizer["model"]["vocab"].items()}
    data = bytearray()
    for index in ids:
        piece = pieces[index]
        if piece.startswith("<0x"):
            data.append(int(piece[3:5], 16))
        else:
            data += piece.replace("\u2581", " ").encode()
    return data.decode().removeprefix(" ")


def make(root):
    """Writes stories260K/golden.json under `root`, if the model is there."""
    folder = _find()
    if folder is None:
        print("stories260K: skipped, shared/data/stories260K is not there")
        return
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    weights = {
        name: tensor.double()
        for name, tensor in safetensors_io.load(
            folder / "model.safetensors"
        ).items()
    }

    prompt = [BEGINNING_OF_SEQUENCE]
    ids, margin = families.greedy(config, weights, prompt, 60)
    text = _decode(tokenizer, ids)
    if not text.startswith(STORY):
        raise SystemExit(f"stories260K: not the published story: {text!r}")

    with torch.no_grad():
        all_logits = families.logits(
            config, weights, torch.tensor(prompt + ids)
        )
        text_ids = _encode(tokenizer, TEXT)
        loss = families.mean_loss(config, weights, [text_ids])
    if _decode(tokenizer, text_ids[1:]) != TEXT:
        raise SystemExit("stories260K: the text does not survive the tokens")
    probes = [
        {
            "position": position,
            "argmax": int(all_logits[position].argmax()),
            "sum": float(all_logits[position].sum()),
            "sum_of_squares": float(all_logits[position].square().sum()),
            "first": [float(value) for value in all_logits[position, :8]],
        }
        for position in PROBED_POSITIONS
    ]
    directory = os.path.join(root, "stories260K")
    os.makedirs(directory, exist_ok=True)
    json_io.save(
        os.path.join(directory, "golden.json"),
        {
            "greedy": {
                "prompt": prompt,
                "ids": ids,
                "text": text,
                "margin": margin,
            },
            "story": STORY,
            "logits": probes,
            "evaluation": {
                "text": TEXT,
                "ids": text_ids,
                "loss": float(loss),
            },
        },
    )
    print(
        f"stories260K: {text!r}, least margin {margin:.3f}, "
        f"loss {float(loss):.4f} over {len(text_ids) - 1} tokens"
    )
