/** Which role holds which secret: the table of the code, and the one that owners read. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { variableNames } from '../../src/platform/config.ts';
import { isSecretVariable, roles, secretsOfRole, secretVariables } from '../../src/platform/roles.ts';
import type { Role } from '../../src/platform/roles.ts';

const available = [...variableNames, 'TOOL_SECRET_A', 'TOOL_SECRET_B'];

/** `| role | SECRET, SECRET … |` */
const documented = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8').matchAll(
  /^\| (ingest|runner|outbox|sync) \| (.*) \|$/gm,
);

it('docs/configuration.md names the secrets of every role', () => {
  const table = Object.fromEntries(
    [...documented].map(([, role = '', cell = '']) => [role, cell.replace(/ \(.*\)$/, '').split(', ')]),
  );
  const code = Object.fromEntries(
    roles.map((role) => [role, secretsOfRole(role, [...secretVariables, 'TOOL_SECRET_…'])]),
  );
  for (const role of roles) expect(table[role]?.toSorted()).toEqual(code[role]?.toSorted());
});

it.each<[Role, string[]]>([
  ['ingest', ['RESEND_SENDING_KEY', 'GITHUB_PAT', 'TOOL_SECRET_A']],
  ['runner', ['RESEND_API_KEY', 'RESEND_SENDING_KEY', 'RESEND_WEBHOOK_SECRET', 'ADMIN_TOKEN', 'GITHUB_PAT']],
  ['outbox', ['RESEND_API_KEY', 'RESEND_WEBHOOK_SECRET', 'ADMIN_TOKEN', 'GITHUB_PAT', 'TOOL_SECRET_A']],
  ['sync', ['RESEND_API_KEY', 'RESEND_SENDING_KEY', 'RESEND_WEBHOOK_SECRET', 'ADMIN_TOKEN', 'TOOL_SECRET_A']],
])('%s never holds what others need', (role, others) => {
  expect(secretsOfRole(role, available).filter((name) => others.includes(name))).toEqual([]);
});

it('the outbox sends with the only key where there is one', () => {
  expect(secretsOfRole('outbox', ['RESEND_API_KEY', 'S2_ACCESS_TOKEN'])).toContain('RESEND_API_KEY');
});

it('one process for everything holds all secrets, and nothing that is none', () => {
  expect(secretsOfRole('all', available)).toEqual([
    ...variableNames.filter(isSecretVariable),
    'TOOL_SECRET_A',
    'TOOL_SECRET_B',
  ]);
  expect(secretsOfRole('all', available)).not.toContain('PORT');
});
