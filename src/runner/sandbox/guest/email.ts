/** Makes the tool's `Email` of what the host sent: headers in any case, `date` a Date, bytes on demand. */
import type { Attachment, Authentication, Email, EmailHeaders } from '../../tool-api.ts';
import type { PlainThreadEmail, SandboxEmail } from '../sandbox.ts';
import { decodeUtf8 } from './encoding.ts';
import { callCapability, fromJson, toJson } from './host.ts';

export function emailFrom(plain: SandboxEmail): Email {
  const { headers, attachments, date, ...rest } = plain;
  /** As JSON: each time that a tool asks, it gets objects of its own. */
  let earlier: Promise<string> | undefined;
  return {
    ...rest,
    headers: headersFrom(headers),
    attachments: attachments.map(attachmentFrom),
    date: dateFrom(date),
    thread: async () => {
      earlier ??= callCapability('thread', null).answer.then(({ value }) => toJson(value));
      return (fromJson(await earlier) as PlainThreadEmail[]).map(({ at, ...mail }) => ({
        ...mail,
        date: new Date(at),
      }));
    },
    authentication: async () => (await callCapability('authentication', null).answer).value as Authentication,
  };
}

function dateFrom(iso: string | null): Date | null {
  const date = new Date(iso ?? Number.NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}

function headersFrom(fields: readonly [string, string][]): EmailHeaders {
  const getAll = (name: string): string[] => {
    const wanted = String(name).toLowerCase();
    return fields.filter(([field]) => field.toLowerCase() === wanted).map(([, value]) => value);
  };
  return {
    get: (name) => getAll(name)[0] ?? null,
    getAll,
    has: (name) => getAll(name).length > 0,
    [Symbol.iterator]: () => fields.values(),
  };
}

/** Bytes come in pieces, so that a big attachment is never in memory twice. */
function attachmentFrom(plain: SandboxEmail['attachments'][number]): Attachment {
  const { index, ...rest } = plain;
  const bytes = async (): Promise<Uint8Array> => {
    let whole = new Uint8Array(0);
    for (let offset = 0; ;) {
      const { value, bytes: piece } = await callCapability('attachment', { index, offset }).answer;
      const { size } = value as { size: number };
      if (offset === 0) whole = new Uint8Array(size);
      if (piece) whole.set(new Uint8Array(piece), offset);
      offset += piece?.byteLength ?? 0;
      if (offset >= size || !piece?.byteLength) return whole;
    }
  };
  return { ...rest, bytes, text: async () => decodeUtf8(await bytes(), false) };
}
