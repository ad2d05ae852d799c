/**
 * Translates the new text of an email with LibreTranslate: mail to `translator+de@` is answered in German,
 * without a tag in English. https://libretranslate.com/docs/
 *
 * libretranslate.com asks for a key: set `TOOL_SECRET_LIBRETRANSLATE_API_KEY`. A server of your own needs
 * none: change the address here and the host in `settings`.
 */
import type { Context, Email } from 'millrace';

const SERVER = 'https://libretranslate.com';

interface Translation {
  translatedText?: string;
  error?: string;
}

export async function translator(email: Email, { fetch, secret }: Context): Promise<string> {
  const response = await fetch(`${SERVER}/translate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      q: email.newText,
      source: 'auto',
      target: email.tag ?? 'en',
      format: 'text',
      api_key: keyOrNothing(secret),
    }),
  });
  const { translatedText, error } = (await response.json()) as Translation;
  if (translatedText === undefined) {
    throw new Error(`LibreTranslate answered ${response.status}: ${error ?? 'nothing'}`);
  }
  return translatedText;
}

function keyOrNothing(secret: Context['secret']): string | undefined {
  try {
    return secret('LIBRETRANSLATE_API_KEY');
  } catch {
    return undefined; // Not set: the server needs none, or says that it does.
  }
}
