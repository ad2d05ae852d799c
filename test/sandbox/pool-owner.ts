/** A process that owns a pool in which a tool spins, until somebody kills it: see pool.test.ts. */
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import { email, limits } from '../runner/example-email.ts';

const pool = createSandboxPool(
  { clock: systemClock, log: createLog('silent') },
  { minChildren: 1, maxChildren: 1 },
);
const bundle = {
  revision: 'spinning',
  code: `var __millraceTools = { async test(email, { fetch }) { await fetch('http://ready'); for (;;); } }; 0`,
  sourceMap: '{"version":3,"sources":[],"mappings":""}',
};
await pool.run({
  bundle,
  exportName: 'test',
  email,
  limits: { ...limits, timeoutMs: 60_000 },
  capabilities: {
    // The tool spins from here on.
    fetch: async () => {
      process.stdout.write('spinning\n');
      return { value: { status: 200, headers: [] } };
    },
  },
  secrets: {},
  fairnessKey: 'test',
  signal: new AbortController().signal,
});
