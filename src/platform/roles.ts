/**
 * What a process of a deployment does, and which secrets it therefore holds. One table says it for everybody:
 * for who hands secrets out to the roles, and for who reads them.
 *
 * A process that runs all roles holds all secrets. Sandbox children hold none, whatever their parent has.
 */

/** What `--only` names: one process of a deployment in several. */
export type Role = 'ingest' | 'runner' | 'outbox' | 'sync';

export const roles: readonly Role[] = ['ingest', 'runner', 'outbox', 'sync'];

/** A variable of this prefix is the secret of a tool. */
export const TOOL_SECRET_PREFIX = 'TOOL_SECRET_';

/** The secrets with names of their own; tools have theirs besides. */
export const secretVariables: readonly string[] = [
  'RESEND_API_KEY',
  'RESEND_SENDING_KEY',
  'RESEND_WEBHOOK_SECRET',
  'S2_ACCESS_TOKEN',
  'GITHUB_PAT',
  'TOOLS_SSH_KEY',
  'GIT_WEBHOOK_SECRET',
  'ADMIN_TOKEN',
];

const needs: Record<Role, readonly string[]> = {
  ingest: ['S2_ACCESS_TOKEN', 'RESEND_API_KEY', 'RESEND_WEBHOOK_SECRET', 'GIT_WEBHOOK_SECRET', 'ADMIN_TOKEN'],
  runner: ['S2_ACCESS_TOKEN'],
  outbox: ['S2_ACCESS_TOKEN', 'RESEND_SENDING_KEY'],
  sync: ['S2_ACCESS_TOKEN', 'GITHUB_PAT', 'TOOLS_SSH_KEY'],
};

/** True for the name of a variable whose value nobody else may see. */
export function isSecretVariable(name: string): boolean {
  return secretVariables.includes(name) || name.startsWith(TOOL_SECRET_PREFIX);
}

/** Of the secrets that there are, by name, those that a role needs; `all` is one process for everything. */
export function secretsOfRole(role: Role | 'all', available: readonly string[]): string[] {
  const secrets = available.filter(isSecretVariable);
  if (role === 'all') return secrets;
  const names = [...needs[role]];
  // Whoever has one key for everything sends with it, too.
  if (role === 'outbox' && !secrets.includes('RESEND_SENDING_KEY')) names.push('RESEND_API_KEY');
  return secrets.filter(
    (name) => names.includes(name) || (role === 'runner' && name.startsWith(TOOL_SECRET_PREFIX)),
  );
}
