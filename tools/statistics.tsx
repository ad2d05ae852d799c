/**
 * Says how long an email is and what hangs on it: as HTML, in which every value is escaped, and as a file
 * for a spreadsheet, `statistics.csv`.
 */
import type { Email, Reply } from 'millrace';

type Row = readonly [what: string, count: number];

export function statistics(email: Email): Reply {
  const rows = rowsOf(email);
  return {
    html: (
      <>
        <h1>{email.subject || 'Your email'}</h1>
        <table>
          {rows.map(([what, count]) => (
            <tr>
              <td>{what}</td>
              <td>{count}</td>
            </tr>
          ))}
        </table>
      </>
    ),
    attachments: [{ filename: 'statistics.csv', content: csvOf(rows), contentType: 'text/csv' }],
  };
}

function rowsOf(email: Email): Row[] {
  const words = new Intl.Segmenter(undefined, { granularity: 'word' }).segment(email.newText);
  return [
    ['characters', email.newText.length],
    ['words', Array.from(words).filter(({ isWordLike }) => isWordLike).length],
    ['lines', email.newText === '' ? 0 : email.newText.split('\n').length],
    ...email.attachments.map(({ filename, size }): Row => [`bytes of ${filename ?? 'an attachment'}`, size]),
  ];
}

/** RFC 4180. No cell begins with what a sender wrote, so none is a formula to a spreadsheet. */
function csvOf(rows: readonly Row[]): string {
  return [['what', 'count'], ...rows].map((row) => `${row.map(csvCell).join(',')}\r\n`).join('');
}

function csvCell(value: string | number): string {
  return `"${String(value).replaceAll('"', '""')}"`;
}
