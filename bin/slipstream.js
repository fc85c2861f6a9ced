#!/usr/bin/env node
// The launcher: finds a Node that can run Slipstream and hands over to the command line. It uses only syntax
// that older versions of Node parse, so that they can say what they lack.

const needed = [22, 18];
const packageFolder = new URL("../", import.meta.url);

/** Whether this Node is at least `major.minor`. */
function isAtLeast(major, minor) {
  const parts = process.versions.node.split(".").map(Number);
  return parts[0] > major || (parts[0] === major && parts[1] >= minor);
}

/** Runs this file again on another Node and ends as it ends. */
function handOver(childProcess, node, script) {
  const child = childProcess.spawn(node, [script].concat(process.argv.slice(2)), { stdio: "inherit" });
  // A terminal sends Ctrl-C to both processes; from elsewhere a signal reaches this one only.
  process.on("SIGINT", () => {
    if (!process.stdin.isTTY) child.kill("SIGINT");
  });
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("error", (error) => fail(`cannot start ${node}: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (signal === null) {
      process.exitCode = code;
      return;
    }
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

function fail(message) {
  console.error(`slipstream: ${message}`);
  process.exitCode = 1;
}

function failForVersion(version, remedy) {
  fail(`needs Node ${version} or newer, and this is ${process.versions.node}: ${remedy}`);
}

// `slipstream ... | head` closes the pipe early: that is no failure.
process.stdout.on("error", (error) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

Promise.all([import("node:fs"), import("node:url"), import("node:module"), import("node:child_process")])
  .then(([fs, url, module, childProcess]) => {
    const inRepository = fs.existsSync(new URL("src/cli/main.ts", packageFolder));
    // Sources run as they are from 22.18 on, which strips types; the compiled package runs on every 22.
    if (isAtLeast(needed[0], inRepository ? needed[1] : 0)) {
      if (module.default.enableCompileCache) module.default.enableCompileCache();
      const entry = inRepository ? "src/cli/main.ts" : "dist/cli/main.js";
      return import(new URL(entry, packageFolder).href).then((cli) => cli.main(process.argv.slice(2)));
    }
    const own = url.fileURLToPath(new URL("node_modules/node/bin/node", packageFolder));
    if (inRepository && fs.existsSync(own)) {
      return handOver(childProcess, own, url.fileURLToPath(import.meta.url));
    }
    const remedy = inRepository ? "run `npm ci`, which brings one" : "install one from https://nodejs.org";
    failForVersion(inRepository ? needed.join(".") : needed[0], remedy);
  })
  .catch((error) => {
    if (/^Cannot find package/.test(error.message)) {
      fail("a package that it needs is not installed: run `npm ci` in its folder");
    } else if (isAtLeast(needed[0], 0)) fail(`internal: ${error instanceof Error ? error.stack : error}`);
    else failForVersion(needed[0], "install one from https://nodejs.org");
  });
