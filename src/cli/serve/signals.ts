const signals = ["SIGTERM", "SIGINT"] as const;

/** Resolves at the next SIGTERM or SIGINT, which then does not end the process. */
export function awaitSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const take = (signal: NodeJS.Signals): void => {
      for (const name of signals) process.off(name, take);
      resolve(signal);
    };
    for (const name of signals) process.on(name, take);
  });
}
