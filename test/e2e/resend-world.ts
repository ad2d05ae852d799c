/** The stand-in for Resend, tools in a folder, and the variables of a daemon that has both. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { freePort, temporaryDirectory } from './daemon.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

export interface ResendWorld {
  readonly resend: ResendStandIn;
  /** Where the tools begin. */
  readonly toolsFile: string;
  readonly variables: Readonly<Record<string, string>>;
}

/** @param stack ends it; what the test defers later, such as its daemon, ends before */
export async function startResendWorld(
  stack: AsyncDisposableStack,
  { apiKey, tools }: { apiKey: string; tools: string },
): Promise<ResendWorld> {
  const directory = stack.use(await temporaryDirectory());
  const toolsFolder = join(directory.path, 'tools');
  const toolsFile = join(toolsFolder, 'index.ts');
  await mkdir(toolsFolder);
  await writeFile(toolsFile, tools);
  const port = await freePort();
  const webhook = { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET };
  const resend = await spawnResendStandIn({ apiKey, webhook });
  stack.defer(() => resend.stop());
  const variables = {
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: apiKey,
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: SECRET,
    DATA_DIR: join(directory.path, 'data'),
    TOOLS_PATH: toolsFolder,
    PORT: String(port),
  };
  return { resend, toolsFile, variables };
}
