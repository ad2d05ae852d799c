/** Evaluates `web-classes.ts` once, at the first call: the bundler makes a function of a module that is required. */
declare const require: (path: './web-classes.ts') => typeof import('./web-classes.ts');

export const loadWebClasses = (): typeof import('./web-classes.ts') => require('./web-classes.ts');
