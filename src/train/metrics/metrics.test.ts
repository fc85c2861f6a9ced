import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { crc32c } from "./crc32c.ts";
import { createMetricsLog, readMetrics } from "./jsonl.ts";
import { createLossChart } from "./loss_chart.ts";
import { combineSinks, type MetricsSink, type StepMetrics } from "./sink.ts";
import { createTensorBoardLog } from "./tensorboard.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-metrics-"));
afterAll(() => rmSync(folder, { recursive: true }));

function metrics(step: number, more: Partial<StepMetrics> = {}): StepMetrics {
  return {
    step,
    loss: 4 / step,
    learning_rate: 1e-3,
    gradient_norm: 0.5,
    tokens: step * 2048,
    tokens_per_second: 1000,
    step_seconds: 2,
    memory_bytes: 2 ** 30,
    ...more,
  };
}

describe("metrics.jsonl", () => {
  it("holds one object a step, in the file as soon as it is recorded", () => {
    const path = join(folder, "plain.jsonl");
    const log = createMetricsLog(path);
    log.record(metrics(1));
    expect(readFileSync(path, "utf8")).toBe(
      '{"step":1,"loss":4,"learning_rate":0.001,"gradient_norm":0.5,"tokens":2048,"tokens_per_second":1000,"step_seconds":2,"memory_bytes":1073741824}\n',
    );
    log.record(metrics(2, { evaluation_loss: 3 }));
    log.close();
    expect(readMetrics(path).map(({ step, evaluation_loss }) => [step, evaluation_loss])).toEqual([
      [1, undefined],
      [2, 3],
    ]);
  });

  it("writes numbers that are not finite as null, and reads them back as NaN", () => {
    const path = join(folder, "nan.jsonl");
    const log = createMetricsLog(path);
    log.record(metrics(1, { loss: Number.NaN, gradient_norm: Infinity }));
    log.close();
    const line = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    expect([line.loss, line.gradient_norm]).toEqual([null, null]);
    expect(readMetrics(path)[0]?.loss).toBeNaN();
  });

  it("cuts off what comes after the step that a run resumes from, and a torn last line", () => {
    const path = join(folder, "resumed.jsonl");
    const first = createMetricsLog(path);
    for (const step of [1, 2, 3, 4]) first.record(metrics(step));
    first.close();
    appendFileSync(path, '{"step":5,"lo');
    const second = createMetricsLog(path, 2);
    second.record(metrics(3, { loss: 9 }));
    second.close();
    expect(readMetrics(path).map(({ step, loss }) => [step, loss])).toEqual([
      [1, 4],
      [2, 2],
      [3, 9],
    ]);
    expect(readdirSync(folder).filter((name) => name.includes(".tmp-"))).toEqual([]);
  });

  it("starts anew where a run does, and names a line that it cannot read", () => {
    const path = join(folder, "other.jsonl");
    writeFileSync(path, '{"step":1}\nnot metrics\n');
    expect(() => createMetricsLog(path, 1)).toThrow(/other\.jsonl:2[\s\S]*received: not metrics/);
    expect(readFileSync(path, "utf8")).toContain("not metrics");
    createMetricsLog(path).close();
    expect(readFileSync(path, "utf8")).toBe("");
  });
});

/** A protobuf message as its fields, by the wire format alone: number, then bytes or number. */
function parseMessage(data: Buffer): Map<number, (Buffer | number)[]> {
  const fields = new Map<number, (Buffer | number)[]>();
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = data[at++]!;
      value += (byte % 128) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < data.length) {
    const key = varint();
    let value: Buffer | number;
    if (key % 8 === 0) value = varint();
    else {
      const length = key % 8 === 1 ? 8 : key % 8 === 5 ? 4 : varint();
      value = data.subarray(at, at + length);
      at += length;
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value]);
  }
  return fields;
}

/** CRC-32C bit by bit, as the polynomial's division is written down. */
function slowCrc32c(bytes: Uint8Array): number {
  let sum = 0xffffffffn;
  for (const byte of bytes) {
    sum ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) sum = (sum >> 1n) ^ (sum & 1n ? 0x82f63b78n : 0n);
  }
  return Number(sum ^ 0xffffffffn);
}

function masked(bytes: Uint8Array): number {
  const sum = BigInt(slowCrc32c(bytes));
  return Number((((sum >> 15n) | ((sum << 17n) & 0xffffffffn)) + 0xa282ead8n) & 0xffffffffn);
}

function readEvents(path: string): Map<number, (Buffer | number)[]>[] {
  const file = readFileSync(path);
  const events = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    expect(file.readUInt32LE(at + 8)).toBe(masked(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(file.readUInt32LE(at + 12 + length)).toBe(masked(data));
    events.push(parseMessage(data));
    at += 16 + length;
  }
  return events;
}

describe("TensorBoard event files", () => {
  it("have the checksum of RFC 3720", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
  });

  it("hold a version, then the scalars of every step", () => {
    const logs = join(folder, "board", "job");
    const log = createTensorBoardLog(logs);
    log.record(metrics(300, { evaluation_loss: 2.5 }));
    log.close();
    const [name] = readdirSync(logs);
    expect(name).toMatch(/^events\.out\.tfevents\.\d+\./);
    const [version, step] = readEvents(join(logs, name!));
    expect(String(version?.get(3)?.[0])).toBe("brain.Event:2");
    expect(step?.get(2)).toEqual([300]);
    const values = parseMessage(step?.get(5)?.[0] as Buffer).get(1) as Buffer[];
    const scalars = values.map((value) => {
      const fields = parseMessage(value);
      return [String(fields.get(1)?.[0]), (fields.get(2)![0] as Buffer).readFloatLE()] as const;
    });
    expect(new Map(scalars).get("evaluation/loss")).toBe(2.5);
    expect(new Map(scalars).get("train/loss")).toBe(Math.fround(4 / 300));
    expect(new Map(scalars).get("progress/tokens")).toBe(614_400);
    expect(scalars).toHaveLength(8);
  });

  it("tell TensorBoard to drop the steps that a resumed run repeats", () => {
    const logs = join(folder, "resumed-board");
    createTensorBoardLog(logs, 40).close();
    const [, start] = readEvents(join(logs, readdirSync(logs)[0]!));
    expect(start?.get(2)).toEqual([41]);
    expect(parseMessage(start?.get(7)?.[0] as Buffer).get(1)).toEqual([1]);
  });
});

describe("loss.svg", () => {
  it("is drawn at a flush, with the history of earlier sessions", () => {
    const path = join(folder, "loss.svg");
    const chart = createLossChart(path, { title: "tiny <&> loss" }, [
      metrics(1),
      metrics(2, { evaluation_loss: 1.5 }),
    ]);
    expect(existsSync(path)).toBe(false);
    chart.record(metrics(4, { evaluation_loss: 1.25 }));
    chart.flush();
    const svg = readFileSync(path, "utf8");
    expect(svg).toContain("tiny &lt;&amp;&gt; loss");
    expect(svg).toContain("Training loss 1.000 at step 4, validation loss 1.250 at step 4.");
    expect(svg).toContain("prefers-color-scheme: dark");
    // Losses 1 to 4 over the plot of 348 pixels from 76: 4 is at the top, 1 at the bottom, 2 two thirds down.
    const line = /class="curve train" stroke-width="2.25" d="([^"]*)"/.exec(svg)?.[1];
    expect(line).toMatch(/^M64,76C.*,300\.?[67]?(C|,).*424$/);
  });

  it("stands for losses that are not finite, for one point and for none", () => {
    const path = join(folder, "odd.svg");
    const chart = createLossChart(path, { title: "odd" });
    chart.flush();
    expect(readFileSync(path, "utf8")).toContain("No training loss yet.");
    chart.record(metrics(1, { loss: Number.NaN }));
    chart.flush();
    chart.record(metrics(2, { evaluation_loss: Infinity }));
    chart.close();
    const svg = readFileSync(path, "utf8");
    expect(svg).not.toMatch(/NaN|Infinity/);
    expect(svg).toContain("Training loss 2.000 at step 2.");
  });
});

describe("a place that cannot be written", () => {
  it("is named", () => {
    const nowhere = join(folder, "absent", "file");
    expect(() => createMetricsLog(nowhere)).toThrow(/cannot write .*absent[\s\S]*received: ENOENT/);
    expect(() => createLossChart(nowhere, { title: "" }).flush()).toThrow(/cannot write .*absent/);
    writeFileSync(join(folder, "taken"), "");
    expect(() => createTensorBoardLog(join(folder, "taken"))).toThrow(/cannot write .*taken[\s\S]*EEXIST/);
  });
});

describe("combineSinks", () => {
  it("closes every sink, and then says what failed", () => {
    const seen: string[] = [];
    const sink = (name: string, failure?: Error): MetricsSink => ({
      record: ({ step }) => seen.push(`${name} ${step}`),
      flush: () => seen.push(`${name} flush`),
      close: () => {
        seen.push(`${name} close`);
        if (failure !== undefined) throw failure;
      },
    });
    const both = combineSinks([sink("a", new Error("disk full")), sink("b")]);
    both.record(metrics(7));
    both.flush();
    expect(() => both.close()).toThrow("disk full");
    expect(seen).toEqual(["a 7", "b 7", "a flush", "b flush", "a close", "b close"]);
  });
});
