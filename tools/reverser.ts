/**
 * Answers with the text of the email, reversed.
 *
 * What is reversed are the characters that a person sees (Unicode's extended grapheme clusters), so an emoji
 * with its skin tone, a family, a flag or a letter with its accents stays whole. Line ends are characters too:
 * the last line comes first. White space at the end of the email is dropped, so `Hello world` and a line end
 * become `dlrow olleH`. Right-to-left text is reversed in the order in which it is stored.
 */
import type { Email } from 'millrace';

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

export function reverser(email: Email): string {
  const characters = Array.from(graphemes.segment(email.text.trimEnd()), ({ segment }) => segment);
  return characters.toReversed().join('');
}
