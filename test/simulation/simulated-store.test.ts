/** The simulation's store keeps the contract of a stream store: else a simulation would prove nothing. */
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { describeStreamStoreContract } from '../streams/stream-store.contract.ts';
import { createDurableStreams } from './durable-streams.ts';
import { createSimulatedStore } from './simulated-store.ts';
import type { Network } from './simulated-store.ts';

/** Everything happens as soon as the loop turns. */
const promptNetwork: Network = {
  async request(_kind, effect, signal) {
    signal?.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
    return effect();
  },
  wait: (subscribe, signal) =>
    new Promise((resolve) => {
      subscribe(resolve);
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    }),
  pause: () => new Promise((resolve) => setImmediate(resolve)),
  batchRecords: () => 1000,
};

describeStreamStoreContract('simulated', async () => {
  const durable = createDurableStreams({ nowMs: () => Math.floor(performance.now()) });
  const open = (): StreamStore => createSimulatedStore(durable, promptNetwork);
  let store = open();
  return {
    get store() {
      return store;
    },
    async reopen() {
      await store.close();
      store = open();
    },
    dispose: () => store.close(),
  };
});
