/** Which release this is: the version in package.json, for people and for the streams' `meta`. Nothing is decided by it. */
import manifest from '../../package.json' with { type: 'json' };

export const release: string = manifest.version;
