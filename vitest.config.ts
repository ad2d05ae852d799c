/** Tests run in processes, two at a time at most: many of them start servers, daemons and sandboxes of their own. */
import { relative } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import type { TestSpecification } from 'vitest/node';

/** Where the long ones are. They begin, so that at the end no process is left alone with one of them. */
const LONG = /^test\/(?:simulation|crash|e2e|deploy|sandbox)\//;

const isLong = ({ moduleId }: TestSpecification): boolean =>
  LONG.test(relative(import.meta.dirname, moduleId));

class LongOnesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // isolated-vm does not work in a process that was started from Node's snapshot.
    execArgv: ['--no-node-snapshot'],
    maxWorkers: 2,
    sequence: { sequencer: LongOnesFirst },
    testTimeout: 20_000,
    hookTimeout: 30_000,
  },
});
