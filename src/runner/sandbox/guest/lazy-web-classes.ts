/**
 * Evaluates `web-classes.ts` at the first call. It is a program of its own, with its own copy of what it shares
 * with the prelude, so that a realm which never asks for it makes not even its functions: see `programs.ts`.
 */
declare const $webClasses: () => typeof import('./web-classes.ts');

let loaded: typeof import('./web-classes.ts') | undefined;

export const loadWebClasses = (): typeof import('./web-classes.ts') => (loaded ??= $webClasses());
