/** Of one document of state: what the guest tells the tool, and the host makes sure of. */
export const stateLimits = { keys: 256, keyChars: 200, bytes: 32 * 1024, depth: 100 } as const;
