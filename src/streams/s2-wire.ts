/**
 * Records as they travel to and from S2: JSON in which all bytes are Base64 (`s2-format: base64`), so that what
 * is appended comes back byte for byte. https://s2.dev/docs/api/records
 */
import { z } from 'zod';
import type { NewRecord, StreamRecord } from './stream-store.ts';

/** Names and values in Base64; S2 leaves out what is empty. */
const headersSchema = z.array(z.tuple([z.string(), z.string()])).default([]);

export const wireRecordSchema = z.object({
  seq_num: z.number().int().nonnegative(),
  /** Milliseconds since the epoch. */
  timestamp: z.number().int(),
  headers: headersSchema,
  body: z.string().default(''),
});
/** A record as S2 keeps it, commands among them. */
export type WireRecord = z.infer<typeof wireRecordSchema>;

/** What is to be appended. */
export type NewWireRecord = Pick<WireRecord, 'headers' | 'body'> & { timestamp?: number };

export function wireRecordOf({ headers = [], body, timestampMs }: NewRecord): NewWireRecord {
  return {
    headers: headers.map(([name, value]) => [base64(name), base64(value)]),
    body: base64(body),
    ...(timestampMs !== undefined && { timestamp: timestampMs }),
  };
}

/** Null for a command, which is no record of ours. */
export function recordOfWire({ seq_num, timestamp, headers, body }: WireRecord): StreamRecord | null {
  if (headers.length === 1 && headers[0]?.[0] === '') return null;
  return {
    seqNum: seq_num,
    timestampMs: timestamp,
    headers: headers.map(([name, value]) => [utf8(name), utf8(value)]),
    body: Buffer.from(body, 'base64'),
  };
}

/** A command: a record whose one header has no name. */
export function fenceCommand(token: string): NewWireRecord {
  return { headers: [['', base64('fence')]], body: base64(token) };
}

export function trimCommand(beforeSeqNum: number, timestampMs?: number): NewWireRecord {
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(BigInt(beforeSeqNum));
  const command: NewWireRecord = { headers: [['', base64('trim')]], body: base64(number) };
  return timestampMs === undefined ? command : { ...command, timestamp: timestampMs };
}

/** Whether what stands there is what we wanted to append. */
export function isSameRecord(ours: NewWireRecord, found: WireRecord | undefined): boolean {
  return (
    found !== undefined &&
    ours.body === found.body &&
    ours.headers.length === found.headers.length &&
    ours.headers.every(([name, value], i) => {
      const header = found.headers[i];
      return name === header?.[0] && value === header[1];
    })
  );
}

function base64(content: string | Uint8Array): string {
  if (typeof content === 'string') return Buffer.from(content).toString('base64');
  return Buffer.from(content.buffer, content.byteOffset, content.byteLength).toString('base64');
}

function utf8(encoded: string): string {
  return Buffer.from(encoded, 'base64').toString('utf8');
}
