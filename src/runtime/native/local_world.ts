import { ConfigError } from "../../base/errors.ts";
import type { EmulatedLink, GroupOptions, ProcessGroup } from "../group.ts";
import { loadAddon } from "./addon.ts";
import { NativeGroup } from "./group.ts";

/** How ranks of one process are joined. */
export interface LocalWorldOptions extends GroupOptions {
  /**
   * Links to pretend, by mesh axis: a group whose name has that axis ("data", "data+sequence", "sequence.inner")
   * is as slow as its slowest link. Every rank has one of its own on each axis, which all its groups over that axis share.
   */
  readonly links?: Readonly<Partial<Record<string, EmulatedLink>>>;
}

/**
 * A world of ranks in this process over shared memory: rank i's end at index i.
 * @throws ConfigError for a size, a timeout or a link that cannot be; RunError where the addon is not built.
 */
export function createLocalWorld(size: number, options: LocalWorldOptions): ProcessGroup[] {
  const { timeoutSeconds, links = {} } = options;
  if (!Number.isInteger(size) || size < 1 || size > 1024) {
    throw new ConfigError("ranks", "this is no number of ranks for one process", {
      expected: "an integer from 1 to 1024",
      received: `${size}`,
    });
  }
  if (!(timeoutSeconds >= 0)) {
    throw new ConfigError("timeout", "this is no timeout", {
      expected: "seconds, or 0 to wait for ever",
      received: `${timeoutSeconds}`,
    });
  }
  const emulated = Object.entries(links).filter(
    (entry): entry is [string, EmulatedLink] => entry[1] !== undefined,
  );
  for (const [axis, { bandwidth, latency }] of emulated) {
    if (bandwidth > 0 && latency >= 0) continue;
    throw new ConfigError("link", `the link of axis "${axis}" cannot be`, {
      expected: "a bandwidth above 0 bytes/s and a latency of 0 s or more",
      received: `bandwidth ${bandwidth}, latency ${latency}`,
    });
  }
  const addon = loadAddon();
  const handles = addon.createLocalWorld(
    size,
    timeoutSeconds,
    emulated.map(([axis]) => axis),
    emulated.map(([, { bandwidth }]) => bandwidth),
    emulated.map(([, { latency }]) => latency),
  );
  return handles.map((handle) => new NativeGroup(addon, handle));
}
