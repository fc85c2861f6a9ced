import { gzipSync, zstdCompressSync } from "node:zlib";

/**
 * A writer of small Parquet files for tests, after the format's specification: one flat table of
 * required columns, one page a column and row group, plain encoding. Metadata is Thrift's compact
 * protocol, of which only what is needed is here.
 */
export interface FixtureColumn {
  readonly name: string;
  readonly values: readonly string[] | readonly number[];
}

const codecs = { none: 0, gzip: 2, zstd: 6 } as const;

type ThriftValue =
  | { readonly type: "i32" | "i64"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "struct"; readonly fields: ThriftFields }
  | {
      readonly type: "list";
      readonly of: "i32" | "string" | "struct";
      readonly items: readonly ThriftValue[];
    };

type ThriftFields = Readonly<Record<number, ThriftValue>>;

const thriftCodes = { i32: 5, i64: 6, string: 8, list: 9, struct: 12 } as const;

const i32 = (value: number): ThriftValue => ({ type: "i32", value });
const i64 = (value: number): ThriftValue => ({ type: "i64", value });
const text = (value: string): ThriftValue => ({ type: "string", value });
const struct = (fields: ThriftFields): ThriftValue => ({ type: "struct", fields });
const list = (of: "i32" | "string" | "struct", items: readonly ThriftValue[]): ThriftValue => ({
  type: "list",
  of,
  items,
});

/** The bytes of a Parquet file whose rows are split into row groups of `rowsPerGroup`. */
export function parquetBytes(
  columns: readonly FixtureColumn[],
  options: { readonly rowsPerGroup: number; readonly codec?: keyof typeof codecs },
): Buffer {
  const codec = options.codec ?? "none";
  const rows = columns[0]!.values.length;
  const parts: Buffer[] = [Buffer.from("PAR1")];
  let position = 4;
  const groups: ThriftValue[] = [];
  for (let start = 0; start < rows; start += options.rowsPerGroup) {
    const count = Math.min(options.rowsPerGroup, rows - start);
    let groupBytes = 0;
    const chunks = columns.map((column) => {
      const plain = plainPage(column.values.slice(start, start + count));
      const stored = codec === "gzip" ? gzipSync(plain) : codec === "zstd" ? zstdCompressSync(plain) : plain;
      const header = writeStruct({
        1: i32(0),
        2: i32(plain.length),
        3: i32(stored.length),
        5: struct({ 1: i32(count), 2: i32(0), 3: i32(3), 4: i32(3) }),
      });
      const offset = position;
      parts.push(header, stored);
      position += header.length + stored.length;
      groupBytes += header.length + stored.length;
      return struct({
        2: i64(offset),
        3: struct({
          1: i32(typeOf(column)),
          2: list("i32", [i32(0)]),
          3: list("string", [text(column.name)]),
          4: i32(codecs[codec]),
          5: i64(count),
          6: i64(header.length + plain.length),
          7: i64(header.length + stored.length),
          9: i64(offset),
        }),
      });
    });
    groups.push(struct({ 1: list("struct", chunks), 2: i64(groupBytes), 3: i64(count) }));
  }
  const leaves = columns.map((column) =>
    struct({
      1: i32(typeOf(column)),
      3: i32(0),
      4: text(column.name),
      ...(typeOf(column) === 6 ? { 6: i32(0) } : {}),
    }),
  );
  const root = struct({ 4: text("schema"), 5: i32(columns.length) });
  const footer = writeStruct({
    1: i32(1),
    2: list("struct", [root, ...leaves]),
    3: i64(rows),
    4: list("struct", groups),
  });
  const length = Buffer.alloc(4);
  length.writeUInt32LE(footer.length);
  return Buffer.concat([...parts, footer, length, Buffer.from("PAR1")]);
}

/** 6 is BYTE_ARRAY, 1 is INT32. */
function typeOf(column: FixtureColumn): number {
  return typeof column.values[0] === "string" ? 6 : 1;
}

function plainPage(values: readonly (string | number)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const length = Buffer.alloc(4);
      if (typeof value === "number") {
        length.writeInt32LE(value);
        return length;
      }
      const bytes = Buffer.from(value);
      length.writeUInt32LE(bytes.length);
      return Buffer.concat([length, bytes]);
    }),
  );
}

function writeStruct(fields: ThriftFields): Buffer {
  const parts: Buffer[] = [];
  let last = 0;
  for (const [key, value] of Object.entries(fields)) {
    const id = Number(key);
    parts.push(Buffer.from([((id - last) << 4) | thriftCodes[value.type]]), writeValue(value));
    last = id;
  }
  return Buffer.concat([...parts, Buffer.from([0])]);
}

function writeValue(value: ThriftValue): Buffer {
  switch (value.type) {
    case "i32":
    case "i64":
      return varint(value.value * 2);
    case "string":
      return Buffer.concat([varint(Buffer.byteLength(value.value)), Buffer.from(value.value)]);
    case "struct":
      return writeStruct(value.fields);
    case "list": {
      const size = value.items.length;
      const code = thriftCodes[value.of];
      const header =
        size < 15
          ? Buffer.from([(size << 4) | code])
          : Buffer.concat([Buffer.from([0xf0 | code]), varint(size)]);
      return Buffer.concat([header, ...value.items.map(writeValue)]);
    }
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  while (value >= 128) {
    bytes.push((value % 128) | 128);
    value = Math.floor(value / 128);
  }
  return Buffer.from([...bytes, value]);
}
