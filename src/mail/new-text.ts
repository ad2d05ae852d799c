/** What the author of a mail wrote now, without the history that is quoted below it. */
export function newTextOf(text: string): string {
  return text;
}
