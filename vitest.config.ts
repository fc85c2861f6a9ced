import { defineConfig } from "vitest/config";

/** Tests sit beside their source (`src/**`) and, where they span rooms, in `test/`. */
export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "scripts/**/*.test.ts", "bench/**/*.test.ts"],
    reporters: ["default", "./test/support/summary_reporter.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
