/**
 * The file of a backup: gzip of JSON lines, so that a person can look into it with `zcat`.
 *
 *   {"kind":"millrace-backup","version":1,"at":…,"release":…,"format":…}
 *   {"stream":"sent","tail":120}                  what follows, up to the next such line, stands on this stream
 *   {"s":7,"t":1764000000000,"h":[["key","…"]],"x":"…"}   number, time, headers, body as text (or "b": as base64)
 *   {"end":true,"records":…,"streams":…,"sha256":…}       over all lines before, each with its line end
 *
 * Numbers that are missing are commands (fences, trims), or records that were gone when the backup was made.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { z } from 'zod';
import { MillraceError, errorMessage } from '../../platform/errors.ts';

const headerSchema = z.object({
  kind: z.literal('millrace-backup'),
  version: z.number(),
  /** When it was begun: what happened later may be in it, or not. */
  at: z.string(),
  release: z.string(),
  /** Of the streams: see `record-versions.ts`. */
  format: z.number(),
});
export type BackupHeader = z.infer<typeof headerSchema>;
const streamSchema = z.object({ stream: z.string(), tail: z.number().int().nonnegative() });
const recordSchema = z.object({
  s: z.number().int().nonnegative(),
  t: z.number(),
  h: z.array(z.tuple([z.string(), z.string()])),
  x: z.string().optional(),
  b: z.string().optional(),
});
const endSchema = z.object({
  end: z.literal(true),
  records: z.number(),
  streams: z.number(),
  sha256: z.string(),
});

export const BACKUP_VERSION = 1;

export type BackupLine = z.infer<typeof streamSchema> | z.infer<typeof recordSchema>;

export interface BackupCounts {
  readonly streams: number;
  readonly records: number;
}

/** Written beside and put in its place at the end: a file of this name is whole. Only its owner may read it. */
export async function writeBackup(
  path: string,
  header: BackupHeader,
  lines: AsyncIterable<BackupLine>,
): Promise<BackupCounts> {
  const counts = { streams: 0, records: 0 };
  async function* text() {
    const hash = createHash('sha256');
    const lineOf = (value: unknown): string => {
      const line = `${JSON.stringify(value)}\n`;
      hash.update(line);
      return line;
    };
    yield lineOf(header);
    for await (const line of lines) {
      if ('stream' in line) counts.streams++;
      else counts.records++;
      yield lineOf(line);
    }
    yield `${JSON.stringify({ end: true, ...counts, sha256: hash.digest('hex') })}\n`;
  }
  const part = `${path}.part`;
  try {
    await pipeline(
      Readable.from(text()),
      createGzip(),
      createWriteStream(part, { mode: 0o600, flush: true }),
    );
    await chmod(part, 0o600);
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  return counts;
}

/**
 * Reads all of it, and only then says that it is whole.
 * @throws MillraceError `backup.unreadable`, `backup.damaged`, `backup.newer_version` (invalid)
 */
export async function verifyBackup(path: string): Promise<{ header: BackupHeader } & BackupCounts> {
  const hash = createHash('sha256');
  let header: BackupHeader | undefined;
  let last = '';
  let lines = 0;
  for await (const line of linesOf(path)) {
    if (lines > 0) hash.update(`${last}\n`);
    last = line;
    lines++;
    header ??= headerOf(path, line);
  }
  const end = endSchema.safeParse(parsed(last)).data;
  if (!header || !end || end.sha256 !== hash.digest('hex') || end.records + end.streams + 2 !== lines)
    throw damaged(path, end ? 'its checksum does not fit' : 'its end is missing');
  return { header, streams: end.streams, records: end.records };
}

/** The lines between the first and the last, of a file that was verified. */
export async function* backupLines(path: string): AsyncGenerator<BackupLine> {
  for await (const line of linesOf(path)) {
    const value = parsed(line);
    const found = streamSchema.safeParse(value).data ?? recordSchema.safeParse(value).data;
    if (found) yield found;
  }
}

function headerOf(path: string, line: string): BackupHeader {
  const header = headerSchema.safeParse(parsed(line)).data;
  if (!header) throw damaged(path, 'it is no backup of Millrace');
  if (header.version <= BACKUP_VERSION) return header;
  throw new MillraceError(
    'invalid',
    'backup.newer_version',
    `${path} was written by release ${header.release}`,
    {
      hint: 'Restore it with that release, or a newer one.',
    },
  );
}

/** @throws MillraceError `backup.unreadable`, `backup.damaged` (invalid) */
async function* linesOf(path: string): AsyncGenerator<string> {
  const file = createReadStream(path);
  const unpacked = file.pipe(createGunzip());
  file.on('error', (error) => unpacked.destroy(error));
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const chunk of unpacked as AsyncIterable<Buffer>) {
      const pieces = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = pieces.pop() ?? '';
      yield* pieces;
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (code.startsWith('Z_')) throw damaged(path, errorMessage(error));
    throw new MillraceError('invalid', 'backup.unreadable', `${path}: ${errorMessage(error)}`, {
      hint: 'Name the file that `millrace backup` wrote.',
      cause: error,
    });
  } finally {
    file.destroy();
  }
  if (rest !== '') yield rest;
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function damaged(path: string, why: string): MillraceError {
  return new MillraceError('invalid', 'backup.damaged', `${path} cannot be used: ${why}`, {
    hint: 'Nothing was changed. Take an older backup, or another copy of this one.',
  });
}
