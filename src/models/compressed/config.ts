import { ConfigError } from "../../base/errors.ts";
import type { ConfigJson } from "../family.ts";

// The layout of "compressed-tensors" (github.com/vllm-project/compressed-tensors), which vLLM and transformers
// read. Of a quantized `NAME.weight` [N, K] the file holds
//   int-quantized:  NAME.weight int8 [N, K] and NAME.weight_scale [N, 1];
//   pack-quantized: NAME.weight_packed int32 [N, K / 8], eight 4-bit numbers a word from the lowest bits up, each
//                   q + 8; NAME.weight_scale [N, K / group]; NAME.weight_shape [2], which is N and K.
// Both are symmetric: w = scale * q. `quantization_config` in config.json says which.

/** How a folder is quantized. */
export type CompressedScheme = { readonly kind: "int8" } | { readonly kind: "int4"; readonly group: number };

/** Whether a config says that its folder is quantized; and that it is in a way that is read here. */
export function readsCompressed(config: ConfigJson, where: string): boolean {
  const { quantization_config: quantization } = config as { quantization_config?: unknown };
  if (quantization === undefined || quantization === null) return false;
  const { quant_method: method, format } = quantization as { quant_method?: unknown; format?: unknown };
  const isKnown =
    method === "compressed-tensors" && (format === "int-quantized" || format === "pack-quantized");
  if (isKnown) return true;
  throw new ConfigError(
    "unsupported_quantization",
    "the model folder is quantized in a way that is not read",
    {
      where: `quantization_config of ${where}`,
      expected: 'quant_method "compressed-tensors" with format "int-quantized" or "pack-quantized"',
      received: `quant_method ${JSON.stringify(method)}, format ${JSON.stringify(format)}`,
      hint: "use the model in floats and `--quant`, or a GGUF file of it",
    },
  );
}

/**
 * `quantization_config` for weights quantized by a scheme.
 * @param ignore modules whose weights stay floats
 */
export function quantizationConfig(scheme: CompressedScheme, ignore: readonly string[]): object {
  const common = { type: "int", symmetric: true, block_structure: null, actorder: null };
  const weights =
    scheme.kind === "int8"
      ? { ...common, num_bits: 8, strategy: "channel", group_size: null, dynamic: false }
      : { ...common, num_bits: 4, strategy: "group", group_size: scheme.group, dynamic: false };
  const activations =
    scheme.kind === "int8"
      ? { ...common, num_bits: 8, strategy: "token", group_size: null, dynamic: true }
      : null;
  return {
    quant_method: "compressed-tensors",
    format: scheme.kind === "int8" ? "int-quantized" : "pack-quantized",
    quantization_status: "compressed",
    global_compression_ratio: null,
    kv_cache_scheme: null,
    ignore,
    config_groups: {
      group_0: { targets: ["Linear"], weights, input_activations: activations, output_activations: null },
    },
  };
}
