/** A real DNS server on loopback that answers from what a test puts there. */
import type { AddressInfo } from 'node:net';
import dns2 from 'dns2';

const { Packet } = dns2;
const SERVFAIL = 2;
const NXDOMAIN = 3;
/** A record holds strings of at most so many octets (RFC 1035 3.3). */
const STRINGS = /.{1,255}/g;

/** By name in lower case; a name that is not there does not exist. What is `silent` gets no answer. */
export type Zone = Record<string, { TXT?: string[]; MX?: string[] } | 'broken' | 'silent'>;

export interface NameServer {
  /** With its port, as Node takes it. */
  readonly address: string;
  /** Names that were asked for, in order. */
  readonly asked: string[];
  close(): Promise<unknown>;
}

export async function startNameServer(zone: Zone): Promise<NameServer> {
  const asked: string[] = [];
  const server = dns2.createServer({
    udp: true,
    handle(request, send) {
      const response = Packet.createResponseFromRequest(request);
      const [question] = request.questions;
      const name = question!.name.toLowerCase();
      asked.push(name);
      const rest = { name, class: Packet.CLASS.IN, ttl: 1 };
      const entry = zone[name];
      if (entry === 'silent') return;
      if (entry === 'broken') response.header.rcode = SERVFAIL;
      else if (!entry) response.header.rcode = NXDOMAIN;
      else if (question!.type === Packet.TYPE.MX)
        for (const exchange of entry.MX ?? [])
          response.answers.push({ ...rest, type: Packet.TYPE.MX, exchange, priority: 10 } as never);
      else if (question!.type === Packet.TYPE.TXT)
        for (const data of entry.TXT ?? [])
          response.answers.push({ ...rest, type: Packet.TYPE.TXT, data: data.match(STRINGS) } as never);
      void send(response);
    },
  });
  const { udp } = (await server.listen({ udp: { port: 0, address: '127.0.0.1' } })) as unknown as {
    udp: AddressInfo;
  };
  return { address: `127.0.0.1:${udp.port}`, asked, close: () => server.close() };
}
