/**
 * Who can read the secrets: the age recipients in `.sops.yaml`, which SOPS encrypts new files for, and those
 * in the encrypted file, which are who can really read it. Comments and the order of both stay as they are;
 * a recipient's name is the comment behind its key.
 */
import { isScalar, isSeq, parseDocument, YAMLMap, YAMLSeq } from 'yaml';
import type { Document, Scalar } from 'yaml';
import { z } from 'zod';
import { MillraceError } from '../platform/errors.ts';

export interface Recipient {
  readonly key: string;
  /** Empty where it has none. */
  readonly name: string;
}

/** Of the keys in deploy/public-test.age.key, which everybody has. */
export const PUBLIC_TEST_RECIPIENTS: readonly string[] = [
  'age1txy54sn97klx6gjfl07ad4kanxjtfkq9z4ar5w5ap2yc2uj4xgystewtq6',
  'age1yflrr6j4q84sp2ghcxav3zs02jufajkmgvuturqq2rslxxxzxf5svmdm7t',
  'age1c2fw2293jkggvalcu4vssk7mgf0ufp8ek0u40rk94ex642zvgqksra6lul',
];

/** An age recipient: X25519, post-quantum or of a plugin. SOPS checks its checksum. */
const AGE_RECIPIENT = /^age1[a-z0-9]{50,4000}$/;
const RECIPIENT_NAME = /^[\w .@()-]{1,60}$/;

/** @throws MillraceError `secrets.invalid_recipient` (invalid) */
export function checkedRecipient(key: string, name: string): Recipient {
  if (!AGE_RECIPIENT.test(key))
    throw invalidRecipient(
      'this is no age recipient',
      'It begins with age1: `age-keygen -y FILE` prints it.',
    );
  if (name !== '' && !RECIPIENT_NAME.test(name))
    throw invalidRecipient('this is no name for a recipient', 'Up to 60 letters, digits, spaces and .-@().');
  return { key, name };
}

/** A `.sops.yaml` for these recipients and one file of secrets. */
export function newSopsConfig(recipients: readonly Recipient[]): string {
  const lines = recipients.map(({ key, name }) => `      - ${key}${name === '' ? '' : ` # ${name}`}`);
  return [
    '# Who can read secrets.encrypted.yaml. Change it by `millrace secrets add-recipient` and `remove-recipient`,',
    '# which encrypt the file again.',
    'creation_rules:',
    '  - path_regex: secrets\\.encrypted\\.yaml$',
    '    age:',
    ...lines,
    '',
  ].join('\n');
}

/** @throws MillraceError `secrets.config_unsupported` (invalid) */
export function configuredRecipients(sopsConfig: string): Recipient[] {
  return recipientList(parseDocument(sopsConfig)).items.map(recipientFrom);
}

/** `.sops.yaml` with one recipient more; with the same one under a new name where it was there. */
export function withRecipient(sopsConfig: string, { key, name }: Recipient): string {
  const document = parseDocument(sopsConfig);
  const list = recipientList(document);
  const item = list.items.find(({ value }) => value === key) ?? document.createNode(key);
  if (name !== '') item.comment = ` ${name}`;
  if (!list.items.includes(item)) list.add(item);
  return String(document);
}

export function withoutRecipient(sopsConfig: string, key: string): string {
  const document = parseDocument(sopsConfig);
  const list = recipientList(document);
  list.items = list.items.filter(({ value }) => value !== key);
  return String(document);
}

/**
 * Names of the secrets and keys of who can read them, as they stand in the encrypted file; no key is needed.
 * @throws MillraceError `secrets.not_encrypted` (invalid)
 */
export function readEncrypted(encrypted: string): { names: string[]; recipients: string[] } {
  const { contents } = parseDocument(encrypted);
  const document = contents instanceof YAMLMap ? (contents.toJSON() as Record<string, unknown>) : {};
  const { sops, ...secrets } = document;
  const metadata = metadataSchema.safeParse(sops);
  if (!metadata.success)
    throw new MillraceError('invalid', 'secrets.not_encrypted', 'the file is not encrypted by SOPS', {
      hint: 'Make a new one: millrace secrets init --recipient AGE_KEY',
    });
  return { names: Object.keys(secrets), recipients: metadata.data.age.map(({ recipient }) => recipient) };
}

const metadataSchema = z.object({ age: z.array(z.object({ recipient: z.string() })).default([]) });

/** The keys of the first rule. A list in one string, as older files have it, becomes a list of its own. */
function recipientList(document: Document.Parsed): YAMLSeq<Scalar<string>> {
  const path = ['creation_rules', 0, 'age'];
  const age = document.errors.length === 0 ? document.getIn(path, true) : undefined;
  if (isSeq<Scalar<string>>(age) && age.items.every((item) => isScalar(item))) return age;
  if (!isScalar(age) || typeof age.value !== 'string')
    throw new MillraceError(
      'invalid',
      'secrets.config_unsupported',
      '.sops.yaml has no list of age recipients',
      {
        hint: 'Its first creation rule names them under `age:`; groups of keys and other kinds are not for us.',
      },
    );
  const list = new YAMLSeq<Scalar<string>>();
  for (const key of age.value.split(',')) list.add(document.createNode(key.trim()));
  document.setIn(path, list);
  return list;
}

function recipientFrom(item: Scalar<string>): Recipient {
  return { key: item.value, name: item.comment?.trim() ?? '' };
}

function invalidRecipient(message: string, hint: string): MillraceError {
  return new MillraceError('invalid', 'secrets.invalid_recipient', message, { hint });
}
