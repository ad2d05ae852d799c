/** `console`: every line goes to the run's record, as `context.log` does. */
import { describeValue } from './describe.ts';
import { tellHost } from './host.ts';

const INDENT = '  ';

let indent = '';
const counts = new Map<string, number>();
const startedMs = new Map<string, number>();

/** Values as one line; a first string with `%s`, `%d`, `%i`, `%f`, `%j`, `%o` or `%O` in it takes the next ones. */
function lineOf([first, ...rest]: unknown[]): string {
  if (typeof first !== 'string') return [first, ...rest].map(describeValue).join(' ');
  let used = 0;
  const text = first.replace(/%[sdifjoOc%]/g, (directive) => {
    if (directive === '%%') return '%';
    if (used >= rest.length) return directive;
    const value = rest[used++];
    switch (directive) {
      case '%d':
        return String(Number(value));
      case '%i':
        return String(Number.parseInt(String(value), 10));
      case '%f':
        return String(Number.parseFloat(String(value)));
      case '%c':
        return '';
      default:
        return describeValue(value);
    }
  });
  return [rest.length === 0 ? first : text, ...rest.slice(used).map(describeValue)].join(' ');
}

function log(...values: unknown[]): void {
  tellHost('log', indent + (values.length === 0 ? '' : lineOf(values)));
}

const labelOf = (label: unknown): string => (label === undefined ? 'default' : String(label));

function elapsed(label: unknown, values: unknown[] = []): void {
  const started = startedMs.get(labelOf(label));
  if (started !== undefined) log(`${labelOf(label)}: ${Date.now() - started}ms`, ...values);
}

export const console = {
  debug: log,
  error: log,
  info: log,
  log,
  trace: log,
  warn: log,
  dir: (value: unknown) => log(value),
  dirxml: log,
  table: (value: unknown) => log(value),
  assert(condition?: unknown, ...values: unknown[]) {
    if (!condition) log(values.length === 0 ? 'Assertion failed' : 'Assertion failed:', ...values);
  },
  clear() {},
  count(label?: unknown) {
    const count = (counts.get(labelOf(label)) ?? 0) + 1;
    counts.set(labelOf(label), count);
    log(`${labelOf(label)}: ${count}`);
  },
  countReset: (label?: unknown) => void counts.delete(labelOf(label)),
  group(...values: unknown[]) {
    if (values.length > 0) log(...values);
    indent += INDENT;
  },
  groupCollapsed: (...values: unknown[]) => console.group(...values),
  groupEnd() {
    indent = indent.slice(INDENT.length);
  },
  time: (label?: unknown) => void startedMs.set(labelOf(label), Date.now()),
  timeLog: (label?: unknown, ...values: unknown[]) => elapsed(label, values),
  timeEnd(label?: unknown) {
    elapsed(label);
    startedMs.delete(labelOf(label));
  },
};
