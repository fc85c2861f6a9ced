import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadConfig } from "../config/index.ts";
import { placementsOf } from "./placement.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-placement-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = join(folder, "config.yaml");
writeFileSync(
  path,
  "model: { path: m }\ndata: { train: t, sequence_length: 8 }\noutput_dir: o\ntrain_batch_size: 16\n",
);

const facts = { ranks: 1, residentBytes: 0, computesInHalf: false };
const first = (...overrides: string[]) => placementsOf(loadConfig(path, overrides), facts)[0];

const onDisk = "zero_optimization.offload_optimizer={device: nvme, nvme_path: /a";
const parametersOnDisk = "zero_optimization={stage: 3, offload_param: {device: nvme, nvme_path: /p";

test("buffers of a sub-group make the windows of an update", () => {
  expect(first(`${onDisk}}`)!.updateWindow).toEqual({ read: 2 ** 25, write: 2 ** 25 });
  const sizes = ["zero_optimization.sub_group_size=1000", `${onDisk}, buffer_count: 3}`];
  expect(first(...sizes)).toMatchObject({ subGroup: 1000, updateWindow: { read: 12_000, write: 12_000 } });
});

test("without a pipeline nothing is read ahead, or written behind", () => {
  const [read, write] = [`${onDisk}, pipeline_read: false}`, `${onDisk}, pipeline_write: false}`];
  expect(first(read)!.updateWindow).toEqual({ read: 0, write: 2 ** 25 });
  expect(first(write)!.updateWindow).toEqual({ read: 2 ** 25, write: 0 });
});

test("buffers of parameters make the window of forward and backward", () => {
  expect(first(`${parametersOnDisk}}}`)).toMatchObject({ window: 2 ** 25, parameters: true });
  expect(first(`${parametersOnDisk}, buffer_count: 3, buffer_size: 50}}`)!.window).toBe(600);
});

test("a folder counts for what is on disk", () => {
  expect(first(`${onDisk}}`, "memory.nvme_path=/b")!.path).toBe("/a");
  const optimizerElsewhere = "offload_optimizer: {device: cpu, nvme_path: /a}";
  expect(first(`${parametersOnDisk}}, ${optimizerElsewhere}}`)!.path).toBe("/p");
  const parametersElsewhere = "zero_optimization.offload_param.nvme_path=/p";
  expect(first(`${onDisk}}`, parametersElsewhere)!.path).toBe("/a");
});

test("the sizes of aio are those of the file", () => {
  const io = first(`${onDisk}}`, "aio={block_size: 8192, queue_depth: 3, thread_count: 2}")!.io;
  expect(io).toEqual({ requestBytes: 8192, queueDepth: 3, threads: 2 });
});

test("activations alone can go to disk", () => {
  expect(first()).toBeUndefined();
  const settings = first("activation_checkpointing.cpu_checkpointing=true", "memory.nvme_path=/b");
  expect(settings).toMatchObject({ path: "/b", spillsAlways: true, parameters: false, optimizer: false });
});
