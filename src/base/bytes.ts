import { ConfigError } from "./errors.ts";

const bytesPerUnit: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/**
 * A number of bytes from text such as `512MiB`, `4 GiB`, `1.5GB` or `4096` (units of 1024 with the `i`,
 * of 1000 without), or from a number. Fractions of a byte are rounded down.
 * @throws ConfigError where it is neither, or not a size that memory can have.
 */
export function parseBytes(size: string | number): number {
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(String(size));
  const unit = bytesPerUnit[match?.[2] ? match[2].toLowerCase() : "b"];
  const bytes = match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
  if (!Number.isSafeInteger(bytes)) {
    throw new ConfigError("bad_byte_size", "not a size in bytes", {
      expected: "bytes, such as 512MiB, 4GiB, 1.5GB or 1048576",
      received: JSON.stringify(size),
    });
  }
  return bytes;
}

/** Bytes as people read them, in units of 1024: `512 B`, `1.5 KiB`, `4 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    // 1023.95 would print as 1024: it belongs to the next unit.
    if (Math.abs(value) < 1023.95 || unit === "TiB") {
      return `${Number(value.toFixed(unit === "B" ? 0 : 1))} ${unit}`;
    }
    value /= 1024;
  }
  return `${bytes} B`;
}
