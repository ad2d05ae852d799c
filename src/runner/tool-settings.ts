/**
 * The `settings` export of the tools, checked: limits and grants by tool. What stands under `default` holds
 * for every tool that has no settings of its own; nothing is merged, so that a grant is read in one place.
 */
import { z } from 'zod';
import { MillraceError } from '../platform/errors.ts';
import type { ToolSettings } from './tool-api.ts';

const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_TIMEOUT_MS = 300_000;
const DEFAULT_MEMORY_LIMIT_MB = 64;
const MIN_MEMORY_LIMIT_MB = 16;
const MAX_MEMORY_LIMIT_MB = 512;
const MAX_GRANTS = 100;

const hostSchema = z.string().refine((host) => originOf(host) !== null, {
  error: 'expected a host such as "api.example.com", or an origin such as "http://127.0.0.1:5000"',
});
const secretSchema = z.string().regex(/^[A-Z][A-Z0-9_]*$/, 'expected a name such as "API_KEY"');

const toolSettingsSchema = z.strictObject({
  hosts: z.array(hostSchema).max(MAX_GRANTS).optional(),
  secrets: z.array(secretSchema).max(MAX_GRANTS).optional(),
  timeoutMs: z.int().min(1).max(MAX_TIMEOUT_MS).optional(),
  memoryLimitMb: z.int().min(MIN_MEMORY_LIMIT_MB).max(MAX_MEMORY_LIMIT_MB).optional(),
});

export type ResolvedSettings = Required<ToolSettings>;
/** Settings by name of export, as they were checked. */
export type CheckedSettings = Readonly<Record<string, z.infer<typeof toolSettingsSchema>>>;

/** @throws MillraceError `tools.settings_invalid` (invalid) that names every key at fault. */
export function checkedSettings(settings: unknown, tools: readonly string[]): CheckedSettings {
  const parsed = z.record(z.string(), toolSettingsSchema).safeParse(settings ?? {});
  const issues = parsed.success ? [] : parsed.error.issues.map(({ path, message }) => fault(path, message));
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

function fault(path: readonly PropertyKey[], message: string): string {
  return `${['settings', ...path].map(String).join('.')}: ${message}`;
}

/** The settings of one tool, with what it leaves out. */
export function settingsFor(settings: CheckedSettings, exportName: string): ResolvedSettings {
  const own = Object.hasOwn(settings, exportName) ? settings[exportName] : undefined;
  const shared = Object.hasOwn(settings, 'default') ? settings['default'] : undefined;
  const { hosts, secrets, timeoutMs, memoryLimitMb } = own ?? shared ?? {};
  return {
    hosts: hosts ?? [],
    secrets: secrets ?? [],
    timeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS,
    memoryLimitMb: memoryLimitMb ?? DEFAULT_MEMORY_LIMIT_MB,
  };
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
