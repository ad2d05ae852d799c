/** The crash matrix as a table of Markdown, one row for each store and point, with a sum at the end. */
import type { Recovery } from './matrix-run.ts';
import type { Streams } from './crash-world.ts';
import type { Tally } from './tally.ts';

export interface MatrixRow {
  readonly streams: Streams;
  readonly point: string;
  kills: number;
  readonly tally: Tally;
  readonly recoveries: Recovery[];
}

const HEAD = [
  'store',
  'killed',
  'kills',
  'accepted',
  'answered once',
  'lost',
  'answered twice',
  'out of order',
  'no answer, with the reason',
  's to the first answer (median, max)',
  's until all is answered (median, max)',
];

export function matrixTable(rows: readonly MatrixRow[]): string {
  const sum = (number: (row: MatrixRow) => number): number =>
    rows.reduce((total, row) => total + number(row), 0);
  const lines = rows.map((row) => [row.streams, row.point, ...numbersOf(row)]);
  const total = [
    'all',
    '',
    sum(({ kills }) => kills),
    sum(({ tally }) => tally.accepted),
    sum(({ tally }) => tally.answeredOnce),
    sum(({ tally }) => tally.lost),
    sum(({ tally }) => tally.answeredTwice),
    sum(({ tally }) => tally.outOfOrder),
    sum(({ tally }) => tally.silentWithReason),
    '',
    '',
  ];
  const ruler = HEAD.map((_, column) => (column < 2 ? '---' : '--:'));
  return [HEAD, ruler, ...lines, total].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function numbersOf({ kills, tally, recoveries }: MatrixRow): (number | string)[] {
  const { accepted, answeredOnce, lost, answeredTwice, outOfOrder, silentWithReason } = tally;
  const first = recoveries.map(({ firstAnswerMs }) => firstAnswerMs);
  const settled = recoveries.map(({ settledMs }) => settledMs);
  return [
    kills,
    accepted,
    answeredOnce,
    lost,
    answeredTwice,
    outOfOrder,
    silentWithReason,
    spread(first),
    spread(settled),
  ];
}

function spread(durationsMs: number[]): string {
  if (durationsMs.length === 0) return '';
  const sorted = durationsMs.toSorted((a, b) => a - b);
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  return `${seconds(sorted[Math.floor(sorted.length / 2)]!)}, ${seconds(sorted.at(-1)!)}`;
}
