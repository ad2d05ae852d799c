/**
 * An author's tools tried on an email from a file, on the author's machine: by the bundle, the parser, the capabilities
 * and the sandbox of a server. There are no streams and no account, and nothing is sent: what a run states is
 * made into text, which can be compared with that of the run before.
 */
import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { inboxOf } from '../../mail/address.ts';
import type { ParsedEmail } from '../../mail/email.ts';
import { decodeHeaderValue } from '../../mail/header-field.ts';
import { attachmentBytes, parseMessage } from '../../mail/message.ts';
import { MillraceError } from '../../platform/errors.ts';
import type { ToolBundle } from '../bundle.ts';
import { createCapabilities } from '../capabilities.ts';
import type { PlainEffect, SandboxPool } from '../sandbox/sandbox.ts';
import { toolRevision } from '../tool-revision.ts';
import type { ToolFiles } from '../tool-set.ts';
import { runLimits, settingsFor } from '../tool-settings.ts';

export interface Trial {
  /** The exported function that ran. */
  readonly tool: string;
  /** What it would have done, or why it failed. */
  readonly text: string;
  readonly logs: readonly string[];
  readonly hasFailed: boolean;
}

interface TrialOptions {
  readonly bundle: ToolBundle;
  readonly raw: Uint8Array;
  /** Null: the one that the email is for; where no tool serves that, all of them. */
  readonly inbox: string | null;
  /** Values of `context.secret`, by name. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

const EMAILS = 'emails/**/*.eml';
const MAX_EMAILS = 10_000;
const MAX_MESSAGE_BYTES = 50 * 1024 * 1024;
const ENTRIES = ['index.ts', 'index.tsx'];
const FOLDER_OF_TOOLS = 'tools';

/** The tools of a folder or of the folder `tools` in it, which is where a server looks in a repository. */
export function toolFilesIn(directory: string): ToolFiles {
  const hasEntry = (folder: string): boolean => ENTRIES.some((name) => isFile(join(folder, name)));
  const inside = join(directory, FOLDER_OF_TOOLS);
  if (!isFile(directory) && !hasEntry(directory) && hasEntry(inside))
    return { directory: inside, root: directory };
  return { directory };
}

/** @throws MillraceError `tools.not_found` (invalid) where there is nothing that tools could begin with */
export function assertTools({ directory }: ToolFiles): void {
  if (isFile(directory) || ENTRIES.some((name) => isFile(join(directory, name)))) return;
  throw new MillraceError('invalid', 'tools.not_found', `there are no tools in ${directory}`, {
    hint: 'Name the folder with their index.ts (or index.tsx), or the repository with the folder tools. `millrace init tools FOLDER` writes some to begin with.',
  });
}

/** The newest email in the folder `emails`; null where there is none. */
export function lastEmailIn(directory: string): { path: string; changedMs: number } | null {
  const paths = globSync(EMAILS, { cwd: directory })
    .slice(0, MAX_EMAILS)
    .map((path) => join(directory, path));
  const dated = paths.map((path) => ({
    path,
    changedMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0,
  }));
  return dated.toSorted((a, b) => b.changedMs - a.changedMs)[0] ?? null;
}

/** @throws MillraceError `send.unreadable_file` (invalid) */
export function readEmail(path: string): Uint8Array {
  try {
    if (statSync(path).size <= MAX_MESSAGE_BYTES) return readFileSync(path);
  } catch (cause) {
    throw unreadable(`${path} cannot be read`, cause);
  }
  throw unreadable(`${path} has more than ${MAX_MESSAGE_BYTES} bytes`);
}

/** Runs the tool that the email is for, or each. @throws what `pool.run` throws */
export async function tryTools(pool: Pick<SandboxPool, 'run'>, options: TrialOptions): Promise<Trial[]> {
  const email = await parseMessage(options.raw);
  const { toolOf } = toolRevision(options.bundle);
  const recipient = recipientOf(email);
  const inbox = options.inbox ?? recipient.inbox;
  const tool = toolOf.get(inbox);
  if (options.inbox !== null && tool === undefined)
    throw new MillraceError('invalid', 'tools.no_such_inbox', `no tool serves the inbox ${inbox}`, {
      hint: `There are: ${[...toolOf.keys()].join(', ')}.`,
    });
  const tools = tool === undefined ? options.bundle.exports : [tool];
  return Promise.all(
    tools.map((name) => tryTool(pool, { ...options, email, tool: name, inbox, tag: recipient.tag })),
  );
}

async function tryTool(
  pool: Pick<SandboxPool, 'run'>,
  run: TrialOptions & { email: ParsedEmail; tool: string; inbox: string; tag: string | null },
): Promise<Trial> {
  const { bundle, raw, email, tool, inbox, tag, signal } = run;
  const settings = settingsFor(bundle.settings, tool);
  const headers = email.headers.map(([name, value]): [string, string] => [name, decodeHeaderValue(value)]);
  const result = await pool.run({
    bundle,
    exportName: tool,
    email: { ...email, headers, id: 'trial', inbox, tag },
    limits: runLimits(settings),
    ...createCapabilities({
      settings,
      secrets: run.secrets,
      attachmentBytes: (index) => attachmentBytes(raw, index),
    }),
    fairnessKey: tool,
    signal,
  });
  const { logs } = result;
  if (result.status === 'failed')
    return { tool, logs, hasFailed: true, text: `failed (${result.reason}): ${result.message}` };
  const text = result.effects.map(effectText).join('\n\n');
  return { tool, logs, hasFailed: false, text: text === '' ? 'no reply' : text };
}

/** Of whatever domain: a mail from a file was for another one, perhaps. */
function recipientOf(email: ParsedEmail): { inbox: string; tag: string | null } {
  for (const { address } of [...email.to, ...email.cc]) {
    const found = inboxOf(address, [address.slice(address.lastIndexOf('@') + 1)]);
    if (found?.inbox != null) return { inbox: found.inbox, tag: found.tag };
  }
  return { inbox: '', tag: null };
}

function effectText(effect: PlainEffect): string {
  const to = effect.kind === 'reply' ? '' : ` to ${effect.to.join(', ')}`;
  const files = (effect.attachments ?? []).map(
    ({ filename, contentBase64 }) => `File: ${filename}, ${Buffer.byteLength(contentBase64, 'base64')} bytes`,
  );
  const lines = [
    `${effect.kind}${to}${effect.at === undefined ? '' : `, at ${effect.at}`}`,
    ...(effect.subject === undefined ? [] : [`Subject: ${effect.subject}`]),
    ...files,
    '',
    effect.text ?? effect.html ?? '',
  ];
  return lines.join('\n').trimEnd();
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function unreadable(message: string, cause?: unknown): MillraceError {
  return new MillraceError('invalid', 'send.unreadable_file', message, {
    hint: 'Give the file of an email (.eml).',
    cause,
  });
}
