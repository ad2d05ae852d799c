/** An installation that lacks a package is nobody's mail's fault. */
import { registerHooks } from 'node:module';
import { afterAll, expect, it } from 'vitest';
import { authenticate } from '../../src/mail/authentication.ts';
import { parseMessage } from '../../src/mail/message.ts';

const hooks = registerHooks({
  resolve(specifier, context, next) {
    if (specifier.includes('mailauth'))
      throw Object.assign(new Error('gone'), { code: 'ERR_MODULE_NOT_FOUND' });
    return next(specifier, context);
  },
});
afterAll(() => hooks.deregister());

// It was parked as an exception of ours.
it('a mail waits while the verifier cannot be loaded', async () => {
  const raw = Buffer.from('DKIM-Signature: v=1; d=a.example; s=s\r\nFrom: ann@a.example\r\n\r\nHi\r\n');
  const fields = await parseMessage(raw);
  await expect(authenticate({ raw, fields, records: {}, receivedMs: 0 })).rejects.toMatchObject({
    kind: 'transient',
    code: 'authentication.unavailable',
  });
});
