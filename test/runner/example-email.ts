/** An email and the limits of a run, for tests that are about something else. */
import type { RunLimits, SandboxEmail } from '../../src/runner/sandbox/sandbox.ts';

export const email: SandboxEmail = {
  id: 'email-1',
  inbox: 'test',
  tag: null,
  from: { name: 'Ada', address: 'ada@example.net' },
  replyTo: [],
  to: [{ name: '', address: 'test@example.com' }],
  cc: [],
  subject: 'Hello',
  text: 'Hello world\r\n',
  newText: 'Hello world',
  html: null,
  headers: [],
  attachments: [],
  messageId: '<1@example.net>',
  references: [],
  date: null,
};

export const limits: RunLimits = {
  timeoutMs: 5_000,
  cpuLimitMs: 20_000,
  memoryLimitMb: 64,
  maxResultBytes: 1_000_000,
  maxLogBytes: 20_000,
};
