/** Tests run in processes, two at a time at most: many of them start servers, daemons and sandboxes of their own. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // isolated-vm does not work in a process that was started from Node's snapshot.
    execArgv: ['--no-node-snapshot'],
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 30_000,
  },
});
