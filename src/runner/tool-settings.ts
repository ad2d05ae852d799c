/**
 * The `settings` export of the tools, checked: limits and grants by tool. What stands under `default` holds
 * for every tool that has no settings of its own; nothing is merged, so that a grant is read in one place.
 */
import { z } from 'zod';
import { MillraceError } from '../platform/errors.ts';
import { senderEntry } from './senders.ts';
import type { SenderRule } from './senders.ts';
import type { RunLimits } from './sandbox/sandbox.ts';
import type { ToolSettings } from './tool-api.ts';

const MAX_GRANTS = 100;
const MAX_SENDERS = 1_000;

/** The limits of a run that a tool may set; docs/threat-model.md has them all. */
export const settableLimits = {
  timeoutMs: { default: 10_000, min: 1, max: 300_000 },
  cpuLimitMs: { default: 10_000, min: 10, max: 60_000 },
  memoryLimitMb: { default: 64, min: 16, max: 512 },
  maxFetches: { default: 50, min: 0, max: 1_000 },
  maxLogBytes: { default: 64 * 1024, min: 0, max: 256 * 1024 },
} as const;
/** What one run gives back: the provider takes 40 MB. */
const MAX_RESULT_BYTES = 42 * 1024 * 1024;
type SettableLimit = keyof typeof settableLimits;

const limitSchema = ({ min, max }: { min: number; max: number }) => z.int().min(min).max(max).optional();

const hostSchema = z.string().refine((host) => originOf(host) !== null, {
  error: 'expected a host such as "api.example.com", or an origin such as "http://127.0.0.1:5000"',
});
const secretSchema = z.string().regex(/^[A-Z][A-Z0-9_]*$/, 'expected a name such as "API_KEY"');

/** Normalised here, once, and not for each mail. */
const senderSchema = z.string().transform((entry, context) => {
  const sender = senderEntry(entry);
  if (sender !== null) return sender;
  const message = 'expected an address such as "ann@example.com", or a domain such as "@example.com"';
  context.addIssue({ code: 'custom', message });
  return z.NEVER;
});

const toolSettingsSchema = z
  .strictObject({
    from: z.array(senderSchema).max(MAX_SENDERS).optional(),
    unauthenticated: z.enum(['run', 'skip', 'park']).optional(),
    hosts: z.array(hostSchema).max(MAX_GRANTS).optional(),
    secrets: z.array(secretSchema).max(MAX_GRANTS).optional(),
    timeoutMs: limitSchema(settableLimits.timeoutMs),
    cpuLimitMs: limitSchema(settableLimits.cpuLimitMs),
    memoryLimitMb: limitSchema(settableLimits.memoryLimitMb),
    maxFetches: limitSchema(settableLimits.maxFetches),
    maxLogBytes: limitSchema(settableLimits.maxLogBytes),
  })
  .refine(({ from, unauthenticated }) => from === undefined || unauthenticated !== 'run', {
    path: ['unauthenticated'],
    error: 'with `from`, expected "skip" or "park": who is on the list is what anyone can claim',
  });

const KNOWN_KEYS = ['from', 'unauthenticated', 'hosts', 'secrets', ...Object.keys(settableLimits)].join(', ');

export type ResolvedSettings = Required<Omit<ToolSettings, keyof SenderRule>> & SenderRule;
/** Settings by name of export, as they were checked. */
export type CheckedSettings = Readonly<Record<string, z.infer<typeof toolSettingsSchema>>>;

/** @throws MillraceError `tools.settings_invalid` (invalid) that names every key at fault. */
export function checkedSettings(settings: unknown, tools: readonly string[]): CheckedSettings {
  const parsed = z.record(z.string(), toolSettingsSchema).safeParse(settings ?? {});
  const issues = parsed.success ? [] : parsed.error.issues.map(faultOf);
  const named = typeof settings === 'object' && settings !== null ? Object.keys(settings) : [];
  for (const name of named) {
    if (name !== 'default' && !tools.includes(name))
      issues.push(fault([name], 'there is no exported function of this name'));
  }
  if (parsed.success && issues.length === 0) return parsed.data;
  throw new MillraceError('invalid', 'tools.settings_invalid', issues.join('; '), {
    hint: 'Correct `export const settings`; the revision that was live stays live.',
  });
}

function faultOf({ code, path, message }: z.core.$ZodIssue): string {
  return fault(path, code === 'unrecognized_keys' ? `${message}; known: ${KNOWN_KEYS}` : message);
}

function fault(path: readonly PropertyKey[], message: string): string {
  return `${['settings', ...path].map(String).join('.')}: ${message}`;
}

/** The settings of one tool, with what it leaves out. */
export function settingsFor(settings: CheckedSettings, exportName: string): ResolvedSettings {
  const own = Object.hasOwn(settings, exportName) ? settings[exportName] : undefined;
  const shared = Object.hasOwn(settings, 'default') ? settings['default'] : undefined;
  const { from = null, hosts = [], secrets = [], ...rest } = own ?? shared ?? {};
  const { unauthenticated = from === null ? 'run' : 'skip', ...limits } = rest;
  const limit = (name: SettableLimit): number => limits[name] ?? settableLimits[name].default;
  return {
    from,
    unauthenticated,
    hosts,
    secrets,
    timeoutMs: limit('timeoutMs'),
    cpuLimitMs: limit('cpuLimitMs'),
    memoryLimitMb: limit('memoryLimitMb'),
    maxFetches: limit('maxFetches'),
    maxLogBytes: limit('maxLogBytes'),
  };
}

/** What the sandbox enforces; `maxFetches` is the capability's. */
export function runLimits(settings: ResolvedSettings): RunLimits {
  const { timeoutMs, cpuLimitMs, memoryLimitMb, maxLogBytes } = settings;
  return { timeoutMs, cpuLimitMs, memoryLimitMb, maxLogBytes, maxResultBytes: MAX_RESULT_BYTES };
}

/** The origin that a granted host stands for: https unless it says otherwise. Null where it is no host. */
export function originOf(host: string): string | null {
  const isOrigin = /^https?:\/\//.test(host);
  const url = URL.parse(isOrigin ? host : `https://${host}`);
  if (!url || url.hostname === '' || url.hostname.includes('*')) return null;
  const isBare =
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === '' &&
    url.username === '' &&
    url.password === '';
  return isBare && !/[/?#@\s]/.test(host.replace(/^https?:\/\//, '')) ? url.origin : null;
}
