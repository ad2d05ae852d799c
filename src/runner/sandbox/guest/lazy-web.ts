/**
 * Evaluates `web-classes.ts` and `web-streams.ts` when they are first asked for. Each is a program of its own, with its
 * own copy of what it shares with the prelude, so that a realm which never asks makes not even its functions: see
 * `programs.ts`.
 */
declare const $webClasses: () => typeof import('./web-classes.ts');
declare const $webStreams: () => typeof import('./web-streams.ts');

let classes: ReturnType<typeof $webClasses> | undefined;
let streams: ReturnType<typeof $webStreams> | undefined;

export const loadWebClasses = (): ReturnType<typeof $webClasses> => (classes ??= $webClasses());
export const loadWebStreams = (): ReturnType<typeof $webStreams> => (streams ??= $webStreams());
