/**
 * The sources as a test of them sees them: parsed, with their imports, exports, functions and strings.
 * What a lint rule can say stands in .oxlintrc.json; this is for what none can.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { parseSync } from 'oxc-parser';

const root = join(import.meta.dirname, '../..');

/** A node of the syntax tree, as far as we look into it. */
interface SyntaxNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

export interface Import {
  /** Path from the repository's root for a relative import, otherwise the package's name. */
  readonly from: string;
  readonly names: readonly string[];
}

export interface FunctionSize {
  readonly line: number;
  /** Without the functions inside of it: those count on their own. */
  readonly ownLines: number;
}

interface Call {
  readonly callee: string;
  readonly args: readonly (string | null)[];
}

export interface Source {
  /** Such as `src/mail/address.ts`. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
  readonly exportedNames: readonly string[];
  readonly functions: readonly FunctionSize[];
  /** Calls and constructions: what is called, as written, and its arguments; a string argument as its value. */
  readonly calls: readonly Call[];
  readonly errorCodes: readonly ErrorCode[];
  /** Codes without a kind: of what is answered over HTTP, where the status says it. */
  readonly answeredCodes: readonly string[];
}

/** A code that errors are made with; its tail is `*` where it is put together at run time. */
export interface ErrorCode {
  readonly code: string;
  readonly kind: string;
}

/** All of `src/`, in order of their paths. */
export function readSources(): Source[] {
  const paths = globSync('src/**/*.{ts,mjs}', { cwd: root }).toSorted();
  return paths.map((path) => parseSource(path, readFileSync(join(root, path), 'utf8')));
}

export function parseSource(path: string, text: string): Source {
  const { program, module, errors } = parseSync(path, text);
  if (errors.length > 0) throw new Error(`${path}: ${errors[0]?.message}`);
  const from = (name: string): string => (name.startsWith('.') ? normalize(join(dirname(path), name)) : name);
  const nodes = [...walk(program)];
  const calls = nodes.filter(isCall).map((node) => ({
    callee: calleeOf(node, text),
    args: (node['arguments'] as SyntaxNode[]).map(stringOf),
  }));
  const exportedFrom = module.staticExports.flatMap(({ entries }) => entries);
  return {
    path,
    text,
    imports: [
      ...module.staticImports.map(({ moduleRequest, entries }) => ({
        from: from(moduleRequest.value),
        names: entries.map(({ importName }) => importName.name ?? '*'),
      })),
      ...exportedFrom.flatMap(({ moduleRequest, importName }) =>
        moduleRequest ? [{ from: from(moduleRequest.value), names: [importName.name ?? '*'] }] : [],
      ),
    ],
    exportedNames: exportedFrom.map(({ exportName }) => exportName.name ?? exportName.kind),
    functions: nodes.filter(isFunction).map((node) => ({
      line: lineAt(text, node.start),
      ownLines: linesOf(text, node) - sum(nestedFunctions(node).map((inner) => linesOf(text, inner) - 1)),
    })),
    calls,
    errorCodes: [...calls.flatMap(codesOfCall), ...nodes.flatMap(codesOfObject)],
    answeredCodes: nodes.flatMap(answeredCodesOf),
  };
}

function calleeOf(node: SyntaxNode, text: string): string {
  const callee = node['callee'] as SyntaxNode;
  return `${node.type === 'NewExpression' ? 'new ' : ''}${text.slice(callee.start, callee.end)}`;
}

/** A string as it is, a template with `*` for what it fills in, a default as itself, null for anything else. */
function stringOf(node: SyntaxNode): string | null {
  if (node.type === 'LogicalExpression') return stringOf(node['right'] as SyntaxNode);
  if (node.type === 'Literal') return typeof node['value'] === 'string' ? node['value'] : null;
  if (node.type !== 'TemplateLiteral') return null;
  return (node['quasis'] as { value: { cooked: string } }[]).map(({ value }) => value.cooked).join('*');
}

const KIND = /^(?:transient|permanent|invalid|bug)$/;
const CODE = /^[a-z_]+\.[a-z_*]+$/;

/** `new MillraceError('invalid', 'a.b', …)`, and functions of ours that take the same first two arguments. */
function codesOfCall({ callee, args }: Call): ErrorCode[] {
  const [first, second] = args;
  if (callee === 'new StreamConditionError' && first) return [{ kind: 'permanent', code: first }];
  return first && second && KIND.test(first) && CODE.test(second) ? [{ kind: first, code: second }] : [];
}

/** `{ kind: 'transient', code: 'a.b' }`, as classifications are written. */
function codesOfObject(node: SyntaxNode): ErrorCode[] {
  const [kind, code] = [propertyOf(node, 'kind'), propertyOf(node, 'code')];
  return KIND.test(kind) && CODE.test(code) ? [{ kind, code }] : [];
}

/** `{ code: 'a.b', message }`, as the body of an answer is written. */
function answeredCodesOf(node: SyntaxNode): string[] {
  const code = propertyOf(node, 'code');
  return CODE.test(code) && propertyOf(node, 'kind') === '' ? [code] : [];
}

/** Of an object that is written out, a property that is a string; empty for none. */
function propertyOf(node: SyntaxNode, name: string): string {
  if (node.type !== 'ObjectExpression') return '';
  const found = childrenOf(node).find(({ key }) => isNode(key) && key['name'] === name);
  return found && isNode(found['value']) ? (stringOf(found['value']) ?? '') : '';
}

function isCall({ type }: SyntaxNode): boolean {
  return type === 'CallExpression' || type === 'NewExpression';
}

function isFunction({ type }: SyntaxNode): boolean {
  return (
    type === 'FunctionDeclaration' || type === 'FunctionExpression' || type === 'ArrowFunctionExpression'
  );
}

/** The outermost functions inside of a node. */
function nestedFunctions(node: SyntaxNode): SyntaxNode[] {
  return childrenOf(node).flatMap((child) => (isFunction(child) ? [child] : nestedFunctions(child)));
}

function* walk(node: unknown): Generator<SyntaxNode> {
  if (!isNode(node)) return;
  yield node;
  for (const child of childrenOf(node)) yield* walk(child);
}

function childrenOf(node: SyntaxNode): SyntaxNode[] {
  return Object.values(node).flat().filter(isNode);
}

function isNode(value: unknown): value is SyntaxNode {
  return typeof value === 'object' && value !== null && 'type' in value && 'start' in value;
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

function linesOf(text: string, { start, end }: SyntaxNode): number {
  return text.slice(start, end).split('\n').length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
