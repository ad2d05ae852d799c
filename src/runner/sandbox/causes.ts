/** What is told of an error beside its own message: what it came of, nearest first. */

/** An error as text: `message` is `Name: message`. */
export interface DescribedError {
  message: string;
  stack: string;
}

/** Of one error, that many of its causes are told. */
export const MAX_CAUSES = 5;
