import { f16At, putF16 } from "./f16.ts";

// Blocks of 256 elements whose parts have small scales of their own, times one or two f16 scales.
//
// Q4_K: 144 bytes: d f16, dmin f16, 12 bytes of eight 6-bit scales and eight 6-bit offsets, 128 bytes of 4-bit
//       numbers. Part p of 32 elements: x = d * scale[p] * q - dmin * offset[p]. Bytes 32 j to 32 j + 31 hold
//       part 2 j in their low halves and part 2 j + 1 in their high halves.
// Q5_K: 176 bytes: as Q4_K with 32 bytes of high bits before the 4-bit numbers: bit p of byte i is bit 4 of
//       element i of part p.
// Q6_K: 210 bytes: 128 bytes of low halves, 64 bytes of bit pairs, 16 x int8 scales, d f16. Part p of 16
//       elements: x = d * scale[p] * (q - 32). Each half of 128 elements has 64 + 32 bytes: of the low
//       halves, byte i holds elements i and i + 64, byte i + 32 elements i + 32 and i + 96; the bit pairs of
//       byte i belong to elements i, i + 32, i + 64 and i + 96, from the low pair up.

/** The 6-bit scale of a part: of parts 4 to 7 the upper two bits lie above the scales of parts 0 to 3. */
function scaleOf(bytes: Uint8Array, at: number, part: number): number {
  if (part < 4) return bytes[at + part]! & 63;
  return (bytes[at + part + 4]! & 15) | ((bytes[at + part - 4]! >> 6) << 4);
}

function offsetOf(bytes: Uint8Array, at: number, part: number): number {
  if (part < 4) return bytes[at + part + 4]! & 63;
  return (bytes[at + part + 4]! >> 4) | ((bytes[at + part]! >> 6) << 4);
}

function putScales(bytes: Uint8Array, at: number, scales: Uint8Array, offsets: Uint8Array): void {
  for (let part = 0; part < 4; part++) {
    bytes[at + part] = scales[part]! | ((scales[part + 4]! >> 4) << 6);
    bytes[at + part + 4] = offsets[part]! | ((offsets[part + 4]! >> 4) << 6);
    bytes[at + part + 8] = (scales[part + 4]! & 15) | ((offsets[part + 4]! & 15) << 4);
  }
}

/** The decoder of Q4_K. */
export function dequantizeQ4K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  dequantizeParts(bytes, at, values, first, false);
}

/** The decoder of Q5_K. */
export function dequantizeQ5K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  dequantizeParts(bytes, at, values, first, true);
}

function dequantizeParts(
  bytes: Uint8Array,
  at: number,
  values: Float32Array,
  first: number,
  fifthBit: boolean,
): void {
  const scale = f16At(bytes, at);
  const minimum = f16At(bytes, at + 2);
  const high = at + 16;
  const low = fifthBit ? high + 32 : high;
  for (let part = 0; part < 8; part++) {
    const step = scale * scaleOf(bytes, at + 4, part);
    const offset = minimum * offsetOf(bytes, at + 4, part);
    for (let i = 0; i < 32; i++) {
      const byte = bytes[low + 32 * (part >> 1) + i]!;
      let q = (part & 1) === 0 ? byte & 15 : byte >> 4;
      if (fifthBit) q |= ((bytes[high + i]! >> part) & 1) << 4;
      values[first + 32 * part + i] = step * q - offset;
    }
  }
}

/** The decoder of Q6_K. */
export function dequantizeQ6K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  const scale = f16At(bytes, at + 208);
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const quarter = (i >> 5) & 3;
    const byte = bytes[at + 64 * half + 32 * (quarter & 1) + (i & 31)]!;
    const low = quarter < 2 ? byte & 15 : byte >> 4;
    const high = (bytes[at + 128 + 32 * half + (i & 31)]! >> (2 * quarter)) & 3;
    const part = (bytes[at + 192 + (i >> 4)]! << 24) >> 24;
    values[first + i] = scale * part * ((low | (high << 4)) - 32);
  }
}

/** The encoder of Q4_K: each part from its least to its largest element. */
export function quantizeQ4K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  quantizeParts(bytes, at, values, first, false);
}

/** The encoder of Q5_K. */
export function quantizeQ5K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  quantizeParts(bytes, at, values, first, true);
}

function quantizeParts(
  bytes: Uint8Array,
  at: number,
  values: Float32Array,
  first: number,
  fifthBit: boolean,
): void {
  const levels = fifthBit ? 31 : 15;
  const steps = new Float64Array(8);
  const minima = new Float64Array(8);
  for (let part = 0; part < 8; part++) {
    let least = 0;
    let most = 0;
    for (let i = 0; i < 32; i++) {
      const value = values[first + 32 * part + i]!;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    steps[part] = (most - least) / levels;
    minima[part] = -least;
  }
  const scale = putF16(bytes, at, Math.max(...steps) / 63);
  const minimum = putF16(bytes, at + 2, Math.max(...minima) / 63);
  const six = (value: number, unit: number): number =>
    unit === 0 ? 0 : Math.min(63, Math.round(value / unit));
  const scales = Uint8Array.from(steps, (step) => six(step, scale));
  const offsets = Uint8Array.from(minima, (offset) => six(offset, minimum));
  putScales(bytes, at + 4, scales, offsets);
  const high = at + 16;
  const low = fifthBit ? high + 32 : high;
  bytes.fill(0, high, low + 128);
  for (let part = 0; part < 8; part++) {
    const step = scale * scales[part]!;
    const offset = minimum * offsets[part]!;
    for (let i = 0; i < 32; i++) {
      const value = values[first + 32 * part + i]!;
      const q = step === 0 ? 0 : Math.max(0, Math.min(levels, Math.round((value + offset) / step)));
      bytes[low + 32 * (part >> 1) + i]! |= (q & 15) << (4 * (part & 1));
      if (fifthBit) bytes[high + i]! |= (q >> 4) << part;
    }
  }
}

/** The encoder of Q6_K: in each part of 16 the element of largest magnitude becomes -32. */
export function quantizeQ6K(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  const steps = new Float64Array(16);
  for (let part = 0; part < 16; part++) {
    let extreme = 0;
    for (let i = 0; i < 16; i++) {
      const value = values[first + 16 * part + i]!;
      if (Math.abs(value) > Math.abs(extreme)) extreme = value;
    }
    steps[part] = extreme / -32;
  }
  const largest = steps.reduce((most, step) => Math.max(most, Math.abs(step)), 0);
  const scale = putF16(bytes, at + 208, largest / 127);
  bytes.fill(0, at, at + 192);
  for (let part = 0; part < 16; part++) {
    const code = scale === 0 ? 0 : Math.max(-127, Math.min(127, Math.round(steps[part]! / scale)));
    bytes[at + 192 + part] = code;
    const step = scale * code;
    for (let i = 16 * part; i < 16 * part + 16; i++) {
      const q = step === 0 ? 32 : Math.max(0, Math.min(63, Math.round(values[first + i]! / step) + 32));
      const half = i >> 7;
      const quarter = (i >> 5) & 3;
      bytes[at + 64 * half + 32 * (quarter & 1) + (i & 31)]! |= (q & 15) << (quarter < 2 ? 0 : 4);
      bytes[at + 128 + 32 * half + (i & 31)]! |= (q >> 4) << (2 * quarter);
    }
  }
}
