/**
 * A secret that a person hands over: from a pipe, or typed at the terminal, where nothing of it is shown.
 * Never from an argument, which every user of the machine could read.
 */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { MillraceError } from '../platform/errors.ts';
import { Secret } from '../platform/secret.ts';

const MAX_CHARS = 60_000;

/** @throws MillraceError `secrets.no_value` (invalid) where nothing came, or too much */
export async function readSecret(question: string): Promise<Secret> {
  const value = (process.stdin.isTTY ? await typed(question) : await piped()).trim();
  if (value !== '' && value.length <= MAX_CHARS) return new Secret(value);
  throw new MillraceError('invalid', 'secrets.no_value', 'no value came, or a far too long one', {
    hint: 'Type it, or pipe it in: millrace secrets set NAME <file',
  });
}

async function typed(question: string): Promise<string> {
  process.stderr.write(`${question}: `);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await terminal.question('');
  } finally {
    terminal.close();
    process.stderr.write('\n');
  }
}

async function piped(): Promise<string> {
  let value = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    value += String(chunk);
    if (value.length > MAX_CHARS) break;
  }
  return value;
}
