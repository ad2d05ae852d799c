/**
 * What the guest makes as JSON and the host takes: replies, and what a bundle exports. It is checked here, in
 * the parent, because the code that made it ran beside the tool's.
 */
import { z } from 'zod';
import { errorMessage } from '../../platform/errors.ts';

export const plainRepliesSchema = z.nullable(
  z.array(
    z.strictObject({
      text: z.string().optional(),
      html: z.string().optional(),
      subject: z.string().optional(),
      attachments: z
        .array(
          z.strictObject({
            filename: z.string(),
            contentBase64: z.base64(),
            contentType: z.string().optional(),
          }),
        )
        .optional(),
    }),
  ),
);

export const inspectionSchema = z.strictObject({
  functions: z.array(z.string()),
  settings: z.unknown().optional(),
  tests: z.unknown().optional(),
});

/** What the guest made, if it is JSON of that shape. */
export function parseGuestJson<T>(schema: z.ZodType<T>, json: string): { data: T } | { fault: string } {
  try {
    const parsed = schema.safeParse(JSON.parse(json));
    return parsed.success ? { data: parsed.data } : { fault: z.prettifyError(parsed.error) };
  } catch (error) {
    return { fault: errorMessage(error) };
  }
}
