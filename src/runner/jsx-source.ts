/**
 * Whose JSX a `.tsx` of the tools is written in, where the file does not say so itself (`@jsxImportSource`): as
 * tsconfig.json names it, which the author's editor goes by; React's where package.json has React, as for React Email;
 * otherwise the one that tools are offered, which needs no package.
 */
import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';

const OFFERED_JSX = 'hono/jsx';
const REACT = 'react';
/** Others would name a file of this machine, or a package that bundles nothing of use here. */
export const JSX_SOURCES: readonly string[] = [OFFERED_JSX, REACT, 'preact'];

const MAX_BYTES = 1_000_000;
/** Folders are not nested deeper. */
const MAX_FOLDERS = 64;
/** In whatever dialect of JSON: comments and commas at the end are common there. */
const NAMED = /^[^/\n]*"jsxImportSource"\s*:\s*"([^"\n]*)"/m;

const dependencies = z.record(z.string(), z.unknown()).optional();
const manifestSchema = z.object({ dependencies, devDependencies: dependencies });

/** @param entry the file that the tools begin with; looked for from its folder up to `root`. */
export function jsxSourceOf(entry: string, root: string): string {
  const tsconfig = nearest('tsconfig.json', entry, root);
  const named = tsconfig === null ? undefined : NAMED.exec(tsconfig)?.[1];
  if (named !== undefined && JSX_SOURCES.includes(named)) return named;
  const manifest = nearest('package.json', entry, root);
  return manifest !== null && hasReact(manifest) ? REACT : OFFERED_JSX;
}

function hasReact(manifest: string): boolean {
  try {
    const { data } = manifestSchema.safeParse(JSON.parse(manifest));
    return Object.hasOwn({ ...data?.dependencies, ...data?.devDependencies }, REACT);
  } catch {
    return false; // Of no use, and whoever installs what it names will say so.
  }
}

/** The text of the file of that name which is nearest to the entry; null where there is none. */
function nearest(name: string, entry: string, root: string): string | null {
  let folder = dirname(entry);
  for (let depth = 0; depth < MAX_FOLDERS; depth++) {
    const path = join(folder, name);
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isFile()) return found.size <= MAX_BYTES ? readFileSync(path, 'utf8') : null;
    if (folder === root || dirname(folder) === folder) return null;
    folder = dirname(folder);
  }
  return null;
}
