import { FileFormatError } from "../../base/errors.ts";

/** The lines of Python that write a safetensors file beside every pickled tensor of a universal checkpoint. */
export function conversionScript(folder: string): string[] {
  return [
    "import pathlib, torch",
    "from safetensors.torch import save_file",
    `for path in pathlib.Path(${JSON.stringify(folder)}).glob("zero/*/*.pt"):`,
    '    value = torch.load(path, map_location="cpu", weights_only=True)',
    '    tensor = torch.as_tensor(value["param"] if isinstance(value, dict) else value)',
    '    save_file({"param": tensor.detach().clone().contiguous()}, path.with_suffix(".safetensors"))',
  ];
}

/** Refuses a checkpoint whose tensors are pickled, and says why and what to do. */
export function refusePickles(folder: string, files: readonly string[]): never {
  const more = files.length > 1 ? `, and ${files.length - 1} more` : "";
  throw new FileFormatError(
    "pickled_checkpoint",
    "the checkpoint is pickled: reading a pickle runs whatever code is in it, so Slipstream reads none",
    {
      where: folder,
      expected: "zero/NAME/fp32.safetensors, exp_avg.safetensors and exp_avg_sq.safetensors",
      received: `${files[0]}${more}`,
      hint: [
        "if you trust the files, convert them once in Python, with torch and safetensors:",
        ...conversionScript(folder).map((line) => `    ${line}`),
      ].join("\n"),
    },
  );
}

/** Refuses a checkpoint as DeepSpeed saves it, in pickled parts of ranks. */
export function refuseRankFiles(folder: string, file: string): never {
  throw new FileFormatError(
    "pickled_checkpoint",
    "this is a checkpoint of DeepSpeed's ranks, pickled: reading a pickle runs whatever code is in it, so Slipstream reads none",
    {
      where: folder,
      expected:
        "a universal checkpoint: zero/NAME/fp32.safetensors, exp_avg.safetensors, exp_avg_sq.safetensors",
      received: file,
      hint: [
        "if you trust the files, make a universal checkpoint of them with DeepSpeed, then safetensors:",
        `    python -m deepspeed.checkpoint.ds_to_universal --input_folder ${folder} --output_folder ${folder}_universal`,
        ...conversionScript(`${folder}_universal`).map((line) => `    ${line}`),
      ].join("\n"),
    },
  );
}
