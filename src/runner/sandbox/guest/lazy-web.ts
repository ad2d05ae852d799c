/**
 * Evaluates `web-classes.ts` and `web-streams.ts` when they are first asked for, once: whoever asks gets the same
 * classes. Each is a program of its own, with its own copy of what it shares with the prelude, so that a realm which
 * never asks makes not even its functions: see `programs.ts`.
 */
declare const $webClasses: () => typeof import('./web-classes.ts');
declare const $webStreams: () => typeof import('./web-streams.ts');

export const loadWebClasses = (): ReturnType<typeof $webClasses> => $webClasses();
export const loadWebStreams = (): ReturnType<typeof $webStreams> => $webStreams();
