/**
 * The stand-in in the test's own process. It composes the parts, listens on loopback, and implements
 * `ResendStandIn`; the same methods are served under `/_control/…` for a test in another process.
 */
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Account } from './account.ts';
import { createApi } from './api.ts';
import type { Env } from './api.ts';
import type {
  AcceptedMail,
  DeliverOptions,
  Delivery,
  DeliveryEvent,
  ResendStandIn,
  ResendStandInOptions,
} from './contract.ts';
import { createControl } from './control.ts';
import { deliveryEvent } from './delivery-events.ts';
import { Receiving, receivedEvent } from './receiving.ts';
import { SecondWindow } from './second-window.ts';
import { Sending } from './sending.ts';
import { StandInState } from './state.ts';
import { Webhooks } from './webhooks.ts';
import { setTimeout as wait } from 'node:timers/promises';

const DEFAULT_WAIT_MS = 10_000;

/** Starts it on loopback; port 0 or none picks a free one. */
export async function startResendStandIn(
  options: ResendStandInOptions,
  onAccepted?: (mail: AcceptedMail) => void,
): Promise<ResendStandIn> {
  const state = new StandInState(options);
  const receiving = new Receiving(state);
  const account = new Account(state);
  const webhooks = new Webhooks(() => state.options.webhook ?? account.target());
  let url = '';
  const api = createApi({
    state,
    receiving,
    account,
    sending: new Sending(state),
    window: new SecondWindow(),
    baseUrl: () => url,
  });
  const app = new Hono<Env>();
  const server = serve({ fetch: app.fetch, hostname: '127.0.0.1', port: options.port ?? 0 }) as Server;
  const standIn = createStandIn({ state, receiving, webhooks, server, url: () => url });
  app.route('/_control', createControl(standIn));
  app.route('/', api);
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  if (onAccepted) state.changes.on('accepted', onAccepted);
  state.changes.on('accepted', (mail: AcceptedMail) => {
    void postConfiguredEvents(standIn, mail, state.options.deliveryEvents ?? []);
  });
  return standIn;
}

interface Parts {
  readonly state: StandInState;
  readonly receiving: Receiving;
  readonly webhooks: Webhooks;
  readonly server: Server;
  readonly url: () => string;
}

function createStandIn(parts: Parts): ResendStandIn {
  const { state, webhooks, server } = parts;
  return {
    get url() {
      return parts.url();
    },
    accepted: async (from = 0) => state.accepted.slice(from),
    requests: async () => [...state.requests],
    waitForAccepted: (count, timeoutMs) => waitForAccepted(state, count, timeoutMs),
    deliver: (raw, options = {}) => deliver(parts, raw, options),
    redeliver: (svixId) => webhooks.repost(svixId),
    postEvent: (type, data, svixId = webhooks.newId()) =>
      webhooks.post({ type, created_at: state.isoNow(), data }, svixId),
    async postDeliveryEvent(event, emailId, details) {
      const mail = state.accepted.find(({ id }) => id === emailId);
      if (!mail) throw new Error(`no mail ${emailId} was accepted`);
      return webhooks.post(deliveryEvent(event, mail, { at: state.isoNow(), details }), webhooks.newId());
    },
    fault: async (route, fault, times = 1) => state.addFault(route, fault, times),
    clearFaults: async () => state.clearFaults(),
    configure: async (settings) => state.configure(settings),
    advanceClock: async (ms) => state.advanceClock(ms),
    async stop() {
      webhooks.stop();
      if (!server.listening) return;
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function deliver(parts: Parts, raw: string | Uint8Array, options: DeliverOptions): Promise<Delivery> {
  const { receiving, webhooks } = parts;
  const svixId = options.svixId ?? webhooks.newId();
  const mail = await receiving.register(raw, options);
  if (options.silent) return { svixId, emailId: mail.id, status: null, statuses: [] };
  const event = receivedEvent(mail, options.data);
  const copies = Array.from({ length: options.copies ?? 1 }, () => webhooks.post(event, svixId));
  const statuses = await Promise.all(copies);
  for (const delayMs of options.retryDelaysMs ?? []) {
    if (statuses.some((status) => status !== null && status >= 200 && status < 300)) break;
    await wait(delayMs);
    statuses.push(await webhooks.repost(svixId));
  }
  return { svixId, emailId: mail.id, status: statuses.at(-1) ?? null, statuses };
}

function waitForAccepted(
  state: StandInState,
  count: number,
  timeoutMs: number = DEFAULT_WAIT_MS,
): Promise<readonly AcceptedMail[]> {
  return new Promise((resolve, reject) => {
    const check = (): void => {
      if (state.accepted.length < count) return;
      finish();
      resolve([...state.accepted]);
    };
    const timer = setTimeout(() => {
      finish();
      reject(new Error(`${state.accepted.length} of ${count} mails were accepted within ${timeoutMs} ms`));
    }, timeoutMs);
    const finish = (): void => {
      clearTimeout(timer);
      state.changes.off('accepted', check);
    };
    state.changes.on('accepted', check);
    check();
  });
}

async function postConfiguredEvents(
  standIn: ResendStandIn,
  mail: AcceptedMail,
  events: readonly DeliveryEvent[],
): Promise<void> {
  for (const event of events) await standIn.postDeliveryEvent(event, mail.id);
}
