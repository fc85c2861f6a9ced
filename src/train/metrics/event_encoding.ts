import { maskedCrc32c } from "./crc32c.ts";

/**
 * TensorBoard's events, encoded by hand: the few protobuf fields that scalars need (`Event` and `Summary`
 * of TensorFlow's event.proto and summary.proto), inside TFRecord framing.
 */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step?: number;
  /** The file format's version; only in the first event of a file. */
  readonly fileVersion?: string;
  /** A session starts at `step`: what earlier files say about it and later steps no longer holds. */
  readonly sessionStart?: boolean;
  /** Values by tag. */
  readonly scalars?: Readonly<Record<string, number>>;
}

/** One event as a TFRecord: length, checksum of the length, data, checksum of the data. */
export function encodeRecord(event: TensorBoardEvent): Uint8Array {
  const data = Buffer.concat(encodeEvent(event));
  const record = Buffer.alloc(16 + data.length);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8);
  data.copy(record, 12);
  record.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return record;
}

const wireVarint = 0;
const wireDouble = 1;
const wireBytes = 2;
const wireFloat = 5;

function encodeEvent(event: TensorBoardEvent): Uint8Array[] {
  const time = Buffer.alloc(8);
  time.writeDoubleLE(event.wallTime);
  const parts = [key(1, wireDouble), time];
  if (event.step !== undefined) parts.push(key(2, wireVarint), varint(event.step));
  if (event.fileVersion !== undefined) parts.push(...bytes(3, Buffer.from(event.fileVersion)));
  if (event.scalars !== undefined) {
    const values = Object.entries(event.scalars).flatMap(([tag, value]) => bytes(1, scalar(tag, value)));
    parts.push(...bytes(5, Buffer.concat(values)));
  }
  if (event.sessionStart === true) parts.push(...bytes(7, Buffer.concat([key(1, wireVarint), varint(1)])));
  return parts;
}

function scalar(tag: string, value: number): Uint8Array {
  const float = Buffer.alloc(4);
  float.writeFloatLE(value);
  return Buffer.concat([...bytes(1, Buffer.from(tag)), key(2, wireFloat), float]);
}

function key(field: number, wireType: number): Uint8Array {
  return varint(field * 8 + wireType);
}

function bytes(field: number, contents: Uint8Array): Uint8Array[] {
  return [key(field, wireBytes), varint(contents.length), contents];
}

/** A whole number of at most 53 bits, seven bits a byte, lowest first. */
function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
  return Uint8Array.from(out);
}
