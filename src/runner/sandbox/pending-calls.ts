/**
 * The calls of a run that the host has not answered, on the child's side of the pipe.
 *
 * What a call says is held by the host until it is answered. So the large ones wait here, where the process has a
 * limit of its memory, until those before them are done with. Small ones pass them; none is lost, and one that the
 * tool gives up while it waits is never sent.
 */
import { callLimits } from './flood-limits.ts';
import type { FromChild } from './messages.ts';

type Call = FromChild & { type: 'call' };

export interface PendingCalls {
  /** Of those without an answer. */
  readonly size: number;
  /** Since the run began. */
  readonly inAll: number;
  /** @param chars of the call as JSON */
  add(call: Call, chars: number): void;
  /** It was answered, or the tool gave it up. */
  remove(number: number): 'sent' | 'unsent' | 'unknown';
}

export function createPendingCalls(send: (call: Call) => void): PendingCalls {
  /** What the sent ones count. */
  const sent = new Map<number, number>();
  const unsent = new Map<number, { call: Call; chars: number }>();
  let sentChars = 0;
  let inAll = 0;

  function pass(call: Call, chars: number): void {
    sent.set(call.call, chars);
    sentChars += chars;
    send(call);
  }

  function sendWhatFits(): void {
    for (const [number, { call, chars }] of unsent) {
      if (sentChars > 0 && sentChars + chars > callLimits.largeCharsAtOnce) return;
      unsent.delete(number);
      pass(call, chars);
    }
  }

  return {
    get size() {
      return sent.size + unsent.size;
    },
    get inAll() {
      return inAll;
    },
    add(call, chars) {
      inAll += 1;
      if (chars <= callLimits.smallChars) return pass(call, 0);
      unsent.set(call.call, { call, chars });
      sendWhatFits();
    },
    remove(number) {
      if (unsent.delete(number)) {
        sendWhatFits();
        return 'unsent';
      }
      const chars = sent.get(number);
      if (chars === undefined) return 'unknown';
      sent.delete(number);
      sentChars -= chars;
      sendWhatFits();
      return 'sent';
    },
  };
}
