import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Mesh } from "../../parallel/mesh.ts";
import { linkOf, loadCluster, machineOf } from "./cluster.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-cluster-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = `accelerator:
  flops: 1.0e+14
  memory: 40GB
  memory_bandwidth: 1000GB
  efficiency: 0.5
ranks_per_node: 4
links:
  node: { bandwidth: 200GB, latency: 1.0e-6 }
  network: { bandwidth: 10GB, latency: 5.0e-6 }
`;

function load(content = text) {
  const path = join(folder, "cluster.yaml");
  writeFileSync(path, content);
  return loadCluster(path);
}

function errorOf(content: string): string {
  try {
    load(content);
  } catch (error) {
    return String(error);
  }
  return "";
}

const node = { bandwidth: 200e9, latency: 1e-6 };
const network = { bandwidth: 10e9, latency: 5e-6 };

test("kernels reach a share of the rates", () => {
  const { flops, bandwidth } = machineOf(load(), new Mesh({}, 0).sizes);
  expect([flops, bandwidth]).toEqual([5e13, 5e11]);
});

test("a group that spans nodes has the network's link, one within a node the node's", () => {
  const cluster = load();
  // 16 ranks on 4 nodes: tensor ranks 0 1, sequence ranks 0 2, data ranks 0 4 8 12.
  const { sizes } = new Mesh({ data: 4, sequence: 2, tensor: 2 }, 0);
  expect(linkOf(cluster, sizes, ["tensor"])).toEqual(node);
  expect(linkOf(cluster, sizes, ["sequence", "tensor"])).toEqual(node);
  expect(linkOf(cluster, sizes, ["data"])).toEqual(network);
  // Eight tensor ranks are on two nodes.
  expect(linkOf(cluster, new Mesh({ tensor: 8 }, 0).sizes, ["tensor"])).toEqual(network);
  // The four data ranks of 4 x 1 x 1 are neighbours.
  expect(linkOf(cluster, new Mesh({ pipeline: 2, data: 4 }, 0).sizes, ["data"])).toEqual(node);
  expect(linkOf(cluster, new Mesh({ pipeline: 2, data: 4 }, 0).sizes, ["pipeline"])).toEqual(network);
  const { links } = machineOf(cluster, sizes);
  expect([...links!.keys()].sort()).toEqual(
    [
      "data",
      "sequence",
      "tensor",
      "data+sequence",
      "data+tensor",
      "sequence+tensor",
      "data+sequence+tensor",
    ].sort(),
  );
  expect(links!.get("data+tensor")).toEqual(network);
});

test("without a network every link is the node's", () => {
  const cluster = load(text.replace(/ {2}network.*\n/, ""));
  expect(linkOf(cluster, new Mesh({ data: 64 }, 0).sizes, ["data"])).toEqual(node);
});

test("an unknown key is refused with the one that was meant and its line", () => {
  const error = errorOf(text.replace("efficiency:", "eficiency:"));
  expect(error).toContain("unknown key accelerator.eficiency");
  expect(error).toContain("did you mean efficiency?");
  expect(error).toContain("cluster.yaml:5:");
});

test("a missing key is named", () => {
  const error = errorOf(text.replace("  memory: 40GB\n", ""));
  expect(error).toContain("accelerator.memory is missing or wrong");
  expect(error).toContain("cluster.yaml:");
});

test.each([
  ["flops: 1.0e+14", "flops: many", "accelerator.flops is missing or wrong", 2],
  ["efficiency: 0.5", "efficiency: 1.5", "accelerator.efficiency is missing or wrong", 5],
  ["ranks_per_node: 4", "ranks_per_node: 0", "ranks_per_node is missing or wrong", 6],
  ["bandwidth: 10GB", "bandwidth: fast", "links.network.bandwidth is missing or wrong", 9],
])("%s as %s", (right, wrong, summary, line) => {
  const error = errorOf(text.replace(right, wrong));
  expect(error).toContain(summary);
  expect(error).toContain(`cluster.yaml:${line}:`);
  expect(error).toContain(wrong.split(": ")[1]!);
});
