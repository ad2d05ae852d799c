/** Mail with real DKIM signatures, of a key that was made for the tests. */
import { generateKeyPairSync } from 'node:crypto';
import { dkimSign } from 'mailauth/lib/dkim/sign.js';

const { privateKey, publicKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'der' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});

/** What is published at `s1._domainkey.` of a domain that signs. */
export const KEY_RECORD = `v=DKIM1; k=rsa; p=${publicKey.toString('base64')}`;

export interface Signing {
  domain: string;
  /** Default: an hour before now. */
  signedAt?: Date;
  expires?: Date;
  maxBodyLength?: number;
  /** The names in `h=`, of those that are there. Default: what most providers sign. */
  fields?: string;
}

export async function signedMail(text: string, signing: Signing): Promise<string> {
  const { domain, expires, maxBodyLength, fields } = signing;
  const { signedAt = new Date(Date.now() - 3_600_000) } = signing;
  const signer = { signingDomain: domain, selector: 's1', privateKey };
  const { signatures } = await dkimSign(text, {
    ...signer,
    canonicalization: 'relaxed/relaxed',
    signTime: signedAt,
    ...(expires && { expires }),
    ...(fields !== undefined && { headerList: fields }),
    signatureData: [{ ...signer, ...(maxBodyLength !== undefined && { maxBodyLength }) }],
  });
  return `${signatures}${text}`;
}
